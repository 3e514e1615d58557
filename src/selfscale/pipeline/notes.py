"""Notes on the last execution of a job: what varies from one to the next is no output of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfscale import files
from selfscale.paths import STATE, Baseline, Job, Training

Work = Training | Job | Baseline


def note(work: Work, **known: Any) -> None:
    """Note what is known of the execution that made an output."""
    files.write_json(_path(work), {"content": files.content(work.output), **known})


def noted(work: Work) -> dict[str, Any] | None:
    """The note, if the output is still what it was then; DVC may have taken another from its cache."""
    path = _path(work)
    if not path.exists():
        return None
    found: dict[str, Any] = files.read_json(path, work.command)
    return found if found["content"] == files.content(work.output) else None


def _path(work: Work) -> Path:
    return STATE / "notes" / f"{work.command.partition(' ')[0]}-{work.name}.json"
