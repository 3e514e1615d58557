"""What the tests of the MLflow modules share: quick new stores, and records to log."""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from selfscale.records import DecisionRecord, Filter, SessionRecord
from selfscale.search.ablation import AblationRecord, Movement, ScoreChange, Successor
from selfscale.tracking.store import Client, open_store

RESULT: dict[str, Any] = {
    "task": "sobel",
    "strategy": "random",
    "seed": 3,
    "loss": "mae",
    "filters_initial": [5, 5],
    "filters_kept": [2, 1],
    "parameters_initial": 871,
    "parameters": 130,
    "macs_per_pixel_initial": 850.0,
    "macs_per_pixel": 125.0,
    "validation": {"initial": {"mae": 0.011, "uiqi": 0.9}, "final": {"mae": 0.012, "uiqi": 0.8}},
    "test": {"initial": {"mae": 0.013, "uiqi": 0.9}, "final": {"mae": 0.012, "uiqi": 0.8}},
    "decisions": 2,
    "accepted": 1,
    "reverted": 1,
    "training_steps": 80,
    "targets": "0123456789abcdef" * 4,
}


@functools.cache
def template() -> Path:
    """A migrated, empty database: making one takes seconds."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    open_store(folder)
    return folder / "mlruns" / "mlflow.db"


def new_store(root: Path) -> Client:
    database = root / "mlruns" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copy(template(), database)
    return open_store(root)


def python(code: str, *arguments: Path | str) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def record(
    number: int,
    *,
    accepted: bool = True,
    filters: tuple[Filter, ...] = (Filter(1, 3),),
    alteration: str | None = None,
    steps: int = 40,
    seconds: float = 1.5,
) -> DecisionRecord:
    session = SessionRecord(
        steps=steps,
        losses=((20, 0.5), (40, 0.25)),
        scores=((20, 0.3), (40, 0.2)),
        ended="completed",
        seconds=seconds,
    )
    return DecisionRecord(
        number=number,
        alteration=alteration or ("disable" if filters else "train"),
        filters=filters,
        selection_score=0.75,
        started_from=number - 1,
        limit=0.21,
        score_before_training=0.4,
        score=0.2 if accepted else 0.3,
        relative_loss=0.05 if accepted else 0.5,
        bound=0.08 if accepted else 0.7,
        metrics={"mae": 0.2, "uiqi": 0.8},
        image_sums=((1.0, 4.0), (0.6, 4.0)),
        accepted=accepted,
        reason="within the limit" if accepted else "above the limit",
        filters_kept=(5, 5 - number),
        parameters=900 - number,
        macs_per_pixel=800.0 - number,
        session=session,
    )


def worth_record(test: str, filter: Filter | None = None, ended: str = "completed") -> AblationRecord:
    """One test of a filter, or the baseline session."""
    return AblationRecord(
        test=test,
        filter=filter,
        reference=0.2,
        score_before_training=0.4,
        score=0.25,
        difference=ScoreChange(0.25, 0.125, 0.5),
        against_baseline=ScoreChange(0.3, 0.2, 0.4) if filter else None,
        movements=tuple(Movement(Filter(*pair), 0.1 * n) for n, pair in enumerate([(0, 0), (1, 0), (2, 0)])),
        successor=Successor(Filter(0, 1), 0.75, 0.5) if filter == Filter(0, 0) else None,
        relearned=0.625 if test == "reinitialized" else None,
        session=SessionRecord(8, ((4, 0.5), (8, 0.3)), ((4, 0.3), (8, 0.25)), ended, seconds=1.5),
    )
