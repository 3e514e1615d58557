"""YAML of any origin, as plain values of a bounded number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from selfscale.errors import UserError, reason

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
