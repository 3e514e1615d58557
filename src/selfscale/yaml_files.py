"""YAML of any origin, as plain values of a bounded number, and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from selfscale.errors import UserError, reason, shown, unknown

LARGEST, MOST_VALUES, DEEPEST = 2**20, 20_000, 20  # bytes, values and levels of them in a file


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings by section; raises UserError if it is missing, or anything else."""
    if not path.is_file():
        problem = "is not a file" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {problem}; run this in the project's folder or name it with --params")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: is too large for a file of settings; at most {LARGEST} bytes are read")
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        _require_plain([content], MOST_VALUES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; make it readable") from error
    except Exception as error:  # YAML builds dates and numbers as it reads, and each fails in its own way
        raise UserError(f"{path}: is not valid YAML: {reason(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings by section (key: value), found {type(content).__name__}")
    return content


def _require_plain(value: Any, left: int, depth: int = 0) -> int:
    """Raise ValueError for values without end, as an alias within what it names; return how many are left."""
    if left < 0 or depth > DEEPEST:
        raise ValueError(f"more than {MOST_VALUES} values, or more than {DEEPEST} levels of them")
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError("a number of more than 64 bits")
    children = [*value, *value.values()] if isinstance(value, dict) else value
    for child in children if isinstance(children, list) else ():
        left = _require_plain(child, left - 1, depth + 1)
    return left


def first_problem(error: ValidationError, schema: type[BaseModel]) -> str:
    """One line for the first of pydantic's errors: the key, what is wrong, what was expected."""
    # A mistyped key also shows as a missing one: name what was written before what was not.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    keys = [str(key) for key in problem["loc"] if key != "[key]"]
    where = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        return unknown(".".join(keys[:-1]) or "settings", keys[-1], _valid_keys(keys[:-1], schema))
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        expected = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return unknown(where, problem["input"], expected)
    return f"{where}: {message[0].lower()}{message[1:]}, not {shown(problem['input'])}"


def _valid_keys(keys: Sequence[str], schema: type[BaseModel]) -> list[str]:
    """The keys of the section that `keys` leads to."""
    section: Any = schema
    for key in keys:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[key].annotation
        else:  # a mapping of names to sections
            section = section.__args__[-1]
    return list(section.model_fields)
