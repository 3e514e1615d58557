"""The blocks of code in README.md and docs/*.md, for the tests that check or run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

CHECKOUT = Path(__file__).parent.parent
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A piece of code of a page; `file` is the last Python file that the text before it names."""

    page: str
    line: int
    language: str
    code: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, section: str | None = None) -> list[Block]:
    """The blocks of a page, or of its section with that heading, in their order."""
    text, found, start, end = page.read_text(encoding="utf-8"), [], 0, len(page.read_text(encoding="utf-8"))
    if section is not None:
        start = text.index(f"\n## {section}\n")
        end = text.find("\n## ", start + 1) if "\n## " in text[start + 1 :] else end
    for match in re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE).finditer(text, start, end):
        named = re.findall(r"`(\w+\.py)`", text[start : match.start()])
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(page.name, line, match[1], match[2], named[-1] if named else ""))
        start = match.end()
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a bash block, as a shell reads them: a list of words each."""
    found = []
    for line in block.code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            number = next((n for n, word in enumerate(words) if set(word) <= set("&|;<>")), len(words))
            found.append(words[:number])
            if words[number : number + 1] == [">"]:  # a file follows, not a command
                number += 1
            words = words[number + 1 :]
    return [command for command in found if command]


def merge(settings: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and key in settings:
            merge(settings[key], value)
        else:
            settings[key] = value


def change(path: Path, changes: Mapping[str, Any]) -> None:
    """What a reader does who writes a YAML block of a page into `params.yaml`."""
    yaml = YAML()
    settings = yaml.load(path)
    merge(settings, changes)
    yaml.dump(settings, path)
