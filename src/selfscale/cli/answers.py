"""What a command answers on stdout: words for people, or with `--json` one JSON document for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

import typer

from selfscale.errors import redact

_kept: list[TextIO] = []  # stdout, while others are kept from it


def keep_stdout(context: typer.Context, as_json: bool) -> bool:
    """With `--json`, the answer alone goes to stdout; what a user's operator prints there goes to stderr."""
    if as_json:
        context.with_resource(_answer_only())
    return as_json


@contextmanager
def _answer_only() -> Iterator[None]:
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def answer(as_json: bool, content: Callable[[], Mapping[str, Any]], words: str = "") -> None:
    """Print the content, which is asked for only then, as one line of JSON; or else the words, if any."""
    if as_json:
        typer.echo(redact(json.dumps(finite(content()), allow_nan=False)), file=_kept[-1])
    elif words:
        typer.echo(redact(words), nl=not words.endswith("\n"))


def finite(value: Any) -> Any:
    """The same with null in the place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
