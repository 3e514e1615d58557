"""The page docs/params.md: every key of `params.yaml`, from the schema and the comments of that file.

`python -m selfscale.cli.reference > docs/params.md` writes it; a test keeps it up to date.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from ruamel.yaml import YAML

from selfscale.config import Settings
from selfscale.data.operators import OPERATORS
from selfscale.plugins import Registry, annotation_of
from selfscale.search.growth import GROWTH_STRATEGIES
from selfscale.search.importance import STRATEGIES

INTRODUCTION = """# The keys of params.yaml

Written by `python -m selfscale.cli.reference > docs/params.md` from the schema and from the comments of
`params.yaml`. A key that is left out has its default; one that is not in this list is an error. `null` means
none. Tables of the operators, strategies and growth strategies that can be named are at the end.
"""
NAMED = ("tasks", "strategies")
ROW = "| {} |\n"


def page(params: str) -> str:
    """The Markdown of the page, from the text of the shipped `params.yaml`.

    Raises ValueError for a key that neither the file nor the schema says the meaning of, or both do.
    """
    written, said = YAML(typ="safe", pure=True).load(params), comments(params)
    schema = Settings.model_json_schema()
    text = INTRODUCTION
    for section in schema["properties"]:
        text += f"\n## {section}\n\n"
        if section in said:
            text += f"{sentence(said[section])}\n\n"
        if section in NAMED:
            shipped = ", ".join(code(name) for name in written[section])
            text += f"Entries by names of your own, NAME below; the shipped ones are {shipped}.\n\n"
        text += table("key", "type and values", "default", "meaning")
        told = {section}
        for key, kind, required in leaves(schema, section):
            above = key.rpartition(".")[0]
            if above in said and above not in told:
                text += ROW.format(" | ".join((f"`{above}`", "section", "", as_cell(said[above]))))
                told.add(above)
            meaning = meaning_of(key, kind, said)
            default = "needed" if required else code(default_of(key, kind, written))
            text += ROW.format(" | ".join((f"`{key}`", values(kind), default, meaning)))
    for title, registry in (
        ("Operators", OPERATORS),
        ("Strategies", STRATEGIES),
        ("Growth strategies", GROWTH_STRATEGIES),
    ):
        text += f"\n## {title}\n\n" + functions(registry)
    return text


def comments(params: str) -> dict[str, str]:
    """What the comment behind each key says, by the key written with dots."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in params.splitlines():
        if match := re.match(r"( *)(\w+):(?:[^#]*)(?:# (.*))?$", line):
            above = [*above[: len(match[1]) // 2], match[2]]
            if match[3]:
                found[".".join(above)] = match[3].strip()
    return found


def leaves(schema: Mapping[str, Any], section: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """The keys below a section, written with dots: what the schema says of each, and whether it is needed."""

    def below(kind: Mapping[str, Any], key: str, required: bool) -> Iterator[tuple[str, Any, bool]]:
        if "$ref" in kind:
            model = schema["$defs"][kind["$ref"].rpartition("/")[2]]
            for name, inner in model["properties"].items():
                yield from below(inner, f"{key}.{name}", name in model.get("required", ()))
        elif entry := named_entry(kind):
            yield from below(entry, f"{key}.NAME", required)
        else:
            yield key, kind, required

    return below(schema["properties"][section], section, False)


def named_entry(kind: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of the entries of a mapping from names to sections."""
    candidates = [kind.get("additionalProperties"), *kind.get("patternProperties", {}).values()]
    return next((entry for entry in candidates if isinstance(entry, dict) and "$ref" in entry), None)


def meaning_of(key: str, kind: Mapping[str, Any], said: Mapping[str, str]) -> str:
    described, comment = kind.get("description"), said.get(key)
    if bool(described) == bool(comment):
        problem = "both" if described else "neither"
        raise ValueError(f"{key}: its meaning is said {problem} in params.yaml and the schema")
    return as_cell(str(described or comment))


def as_cell(words: str) -> str:
    return words.replace(" | ", "; ")


def default_of(key: str, kind: Mapping[str, Any], written: Any) -> Any:
    """What the file says, or the schema of a key that is not there."""
    for part in key.split("."):
        if not isinstance(written, dict) or part not in written:
            return kind.get("default")
        written = written[part]
    return written


def values(kind: Mapping[str, Any]) -> str:
    """Type, range and choices in words."""
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(values(option) for option in kind["anyOf"]))
    for choices in (kind.get("enum"), [kind["const"]] if "const" in kind else None):
        if choices:
            return ", ".join(code(choice) for choice in choices)
    match kind.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "array":
            some = " (at least one)" if kind.get("minItems") else ""
            return f"list of {values(kind['items'])}{some}"
        case "object":
            return "mapping"
        case "string":
            return f"text like {code(kind['pattern'])}" if "pattern" in kind else "text"
        case "integer" | "number":
            return " ".join([str(kind["type"]), *limits(kind)])
    raise ValueError(f"there are no words for {kind}")


def limits(kind: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):
        if name in kind:
            yield f"{words} {kind[name]:.12g}"


def functions(registry: Registry[Callable[..., Any]]) -> str:
    """A table of what can be named: arguments with their defaults, and the first line of each docstring."""
    text = table("name", "arguments", "what it does")
    for name in registry.names:
        function = registry.resolve(name, name)
        taken = list(inspect.signature(function).parameters.values())[1:]
        arguments = "; ".join(f"`{one.name}`: {argument(function, one)}" for one in taken) or "none"
        first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        discrete = "; discrete" if getattr(function, "discrete", False) else ""
        text += ROW.format(" | ".join((f"`{name}`{discrete}", arguments, first)))
    return text


def argument(function: Callable[..., Any], parameter: inspect.Parameter) -> str:
    hint = annotation_of(function, parameter)
    choices = [code(choice) for choice in get_args(hint) if isinstance(choice, str)]
    of = f"{', '.join(choices)}; " if choices else ""
    return f"{of}default {code(parameter.default)}"


def table(*titles: str) -> str:
    return ROW.format(" | ".join(titles)) + ROW.format(" | ".join("---" for _ in titles))


def sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def code(value: Any) -> str:
    """A value as it is written in YAML (which JSON is, too)."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`".replace("|", "\\|")


if __name__ == "__main__":
    print(page(Path("params.yaml").read_text(encoding="utf-8")), end="")
