"""The page docs/params.md: every key of `params.yaml`, from the schema.

`python -m selfscale.cli.reference > docs/params.md` writes it; a test keeps it up to date.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from selfscale.data.operators import OPERATORS
from selfscale.plugins import Registry, annotation_of
from selfscale.search.growth import GROWTH_STRATEGIES
from selfscale.search.importance import STRATEGIES
from selfscale.settings import Settings

INTRODUCTION = """# The keys of params.yaml

Written by `python -m selfscale.cli.reference > docs/params.md` from the schema. A key that is left out has
its default; one that is not in this list is an error. `null` means none. Tables of the operators, strategies
and growth strategies that can be named are at the end.
"""
Schema = Mapping[str, Any]
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def page() -> str:
    """The Markdown of the page."""
    schema, text = Settings.model_json_schema(), INTRODUCTION
    for section, kind in schema["properties"].items():
        meaning = kind["description"]
        text += f"\n## {section}\n\n{meaning[0].upper()}{meaning[1:]}.\n\n"
        text += table(("key", "type and values", "default", "meaning"), rows(schema, section, kind))
    for title, registry in (
        ("Operators", OPERATORS),
        ("Strategies", STRATEGIES),
        ("Growth strategies", GROWTH_STRATEGIES),
    ):
        text += f"\n## {title}\n\n{table(('name', 'arguments', 'what it does'), functions(registry))}"
    return text


def table(titles: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, ("---",) * len(titles), *lines))


def rows(schema: Schema, above: str, kind: Schema) -> Iterator[tuple[str, ...]]:
    """Key, values, default and meaning of each key below `above`, written with dots."""
    for entry in kind.get("patternProperties", {}).values():  # a mapping of names to sections
        above, kind = f"{above}.NAME", entry
    for name, inner in schema["$defs"][kind["$ref"].rpartition("/")[2]]["properties"].items():
        key = f"{above}.{name}"
        meaning = inner.get("description", "").replace(" | ", "; ")
        if "$ref" not in inner:
            default = code(inner["default"]) if "default" in inner else "needed"
            yield f"`{key}`", values(inner), default, meaning
            continue
        if meaning:
            yield f"`{key}`", "section", "", meaning
        yield from rows(schema, key, inner)


def values(kind: Schema) -> str:
    """Type, range and choices in words."""
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(values(option) for option in kind["anyOf"]))
    if choices := kind.get("enum") or ("const" in kind and [kind["const"]]):
        return ", ".join(code(choice) for choice in choices)
    match kind["type"]:
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return f"list of {values(kind['items'])}{' (at least one)' * kind.get('minItems', 0)}"
        case "object":
            return "mapping"
        case "string":
            return f"text like {code(kind['pattern'])}" if "pattern" in kind else "text"
        case number:
            limits = (f"{words} {kind[name]:.12g}" for name, words in LIMITS.items() if name in kind)
            return " ".join([number, *limits])


def functions(registry: Registry[Callable[..., Any]]) -> Iterator[tuple[str, ...]]:
    """Name, arguments with their defaults, and first line of the docstring of what can be named."""
    for name in registry.names:
        function = registry.resolve(name, name)
        taken = list(inspect.signature(function).parameters.values())[1:]
        arguments = "; ".join(f"`{one.name}`: {argument(function, one)}" for one in taken) or "none"
        first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        yield f"`{name}`{'; discrete' if getattr(function, 'discrete', False) else ''}", arguments, first


def argument(function: Callable[..., Any], parameter: inspect.Parameter) -> str:
    choices = [code(choice) for choice in get_args(annotation_of(function, parameter)) if type(choice) is str]
    return f"{', '.join(choices)}{'; ' if choices else ''}default {code(parameter.default)}"


def code(value: Any) -> str:
    """A value as it is written in YAML (which JSON is, too)."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`".replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
