"""Where the pipeline's files lie below the project's folder, and who may write them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

PREPARED = Path("data/prepared")
TARGETS = Path("data/targets")
TRAINED = Path("models/trained")
MINIMIZED = Path("models/minimized")
REPORTS = Path("reports")
# Beside the pipeline's outputs, which DVC deletes before a stage runs.
STATE = Path(".selfscale")

log = logging.getLogger(__name__)


def store_root() -> Path:
    """The folder with `mlruns`: that of the project, also where DVC runs a stage in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT", "."))


class Job(NamedTuple):
    """One minimization of the pipeline."""

    task: str
    strategy: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.strategy}-seed-{self.seed}"

    @property
    def command(self) -> str:
        return f"minimize {self.task} --strategy {self.strategy} --seed {self.seed}"

    @property
    def folder(self) -> Path:
        return MINIMIZED / self.name

    @property
    def trained(self) -> Path:
        return trained_folder(self.task, self.seed)

    @property
    def made_by(self) -> Path:
        """Where the time it took and its MLflow run are noted: no output, since they vary."""
        return STATE / "runs" / f"{self.name}.json"


def trained_folder(task: str, seed: int) -> Path:
    return TRAINED / f"{task}-seed-{seed}"


@contextmanager
def only_one(name: str) -> Iterator[bool]:
    """Hold the lock of that name; true if another process held it and had to be waited for.

    A killed `dvc repro` leaves its stage running, and the next one starts the same stage beside it.
    """
    path = STATE / f"{name}.lock"
    path.parent.mkdir(exist_ok=True)
    lock, waited = FileLock(path), False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s: another process is at it; waiting until it has ended", name)
        lock.acquire()
        waited = True
    with lock:
        yield waited
