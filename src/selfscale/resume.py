"""A minimization's state on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfscale.records import DecisionRecord, Filter, SessionRecord
from selfscale.snapshot import Snapshot
from selfscale.training import Trainer
from selfscale.workspace import STATE


@dataclass(frozen=True)
class Progress:
    """What an interrupted minimization had done: its MLflow run, its decisions, its network."""

    run_id: str
    records: tuple[DecisionRecord, ...]
    snapshot: Snapshot

    @property
    def finished(self) -> bool:
        return bool(self.records) and not self.records[-1].filters


def state_path(name: str, inputs: dict[str, Any]) -> Path:
    """One file per minimization and hash of its settings and inputs: other inputs start anew."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return STATE / f"{name}-{digest}.npz"


def save(path: Path, trainer: Trainer, run_id: str, records: list[DecisionRecord]) -> None:
    Snapshot.take(trainer, run_id=run_id, records=[asdict(record) for record in records]).save(path)


def load_if_wanted(path: Path, waited: bool) -> Progress | None:
    """The state to go on from, if there is one.

    A finished one is wanted only by a process that waited for the one that finished it: it writes
    the same outputs without training again. Else somebody asked for a new run.
    """
    if not path.exists():
        return None
    progress = load(path)
    return progress if waited or not progress.finished else None


def load(path: Path) -> Progress:
    """Raises UserError if the file is missing or damaged."""
    snapshot = Snapshot.load(path)
    records = tuple(as_record(content) for content in snapshot.data["records"])
    return Progress(snapshot.data["run_id"], records, snapshot)


def as_record(content: dict[str, Any]) -> DecisionRecord:
    """A record as it was before JSON, which has no tuples."""
    session = dict(content["session"])
    for curve in ("losses", "scores"):
        session[curve] = tuple((step, value) for step, value in session[curve])
    return DecisionRecord(
        **{
            **content,
            "filters": tuple(Filter(*filter) for filter in content["filters"]),
            "filters_kept": tuple(content["filters_kept"]),
            "session": SessionRecord(**session),
        }
    )
