"""Where the pipeline's files lie below the project's folder, and who may write them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PREPARED = Path("data/prepared")
TARGETS = Path("data/targets")
TRAINED = Path("models/trained")
MINIMIZED = Path("models/minimized")
REPORTS = Path("reports")
# Beside the pipeline's outputs, which DVC deletes before a stage runs.
STATE = Path(".selfscale")

log = logging.getLogger(__name__)


def trained_folder(task: str, seed: int) -> Path:
    return TRAINED / f"{task}-seed-{seed}"


def minimized_folder(task: str, strategy: str, seed: int) -> Path:
    return MINIMIZED / f"{task}-{strategy}-seed-{seed}"


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
