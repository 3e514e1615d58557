"""What recording costs a minimization: the time spent in it, and what its thread takes from the processor."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rows import TASK, Row, settings

from selfscale.paths import Job
from selfscale.pipeline import minimize as minimizing
from selfscale.tracking.store import open_store
from selfscale.tracking.sync import Syncer

REPETITIONS = 3


def measure() -> Iterator[Row]:
    totals, without = [], []
    for _ in range(REPETITIONS):
        total, cost = one()
        totals.append(total)
        without.append(total - cost)
    yield Row(
        "a minimization with tracking to the local store; without",
        "s",
        totals,
        without,
        "the same run less its waiting for tracking and the processor time of the thread that uploads",
        at_most=1.03,
    )


def one() -> tuple[float, float]:
    """Seconds of a minimization, and how many of them tracking took, in a project of its own."""
    chosen = settings()
    job = Job(TASK, chosen.runs.strategies[0], chosen.runs.seeds[0])
    spent = 0.0

    def counted(real: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal spent
            started = clock()
            try:
                return real(*arguments, **named)
            finally:
                spent += clock() - started

        return call

    source = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name in ("data", "src"):
            Path(name).symlink_to(source / name)
        Path("models").mkdir()
        Path("models/trained").symlink_to(source / "models/trained")
        open_store(Path())  # the first one makes the database, once in a project's life
        with (
            patch.object(Syncer, "__enter__", counted(Syncer.__enter__, time.perf_counter)),
            patch.object(Syncer, "wake", counted(Syncer.wake, time.perf_counter)),
            patch.object(Syncer, "__exit__", counted(Syncer.__exit__, time.perf_counter)),
            patch.object(Syncer, "run", counted(Syncer.run, time.thread_time)),
        ):
            started = time.perf_counter()
            minimizing.run_minimization(chosen, job)
            total = time.perf_counter() - started
    return total, spent
