"""Where the pipeline's files lie below the project's folder, and who may write them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

INPUTS = Path("data/inputs")
PREPARED = Path("data/prepared")
TARGETS = Path("data/targets")
TRAINED = Path("models/trained")
MINIMIZED = Path("models/minimized")
BASELINES = Path("models/baseline")
REPORTS = Path("reports")
BUDGET = Path("models/budget")
PICKS = Path("picks.json")
# Beside the pipeline's outputs, which DVC deletes before a stage runs.
STATE = Path(".selfscale")

log = logging.getLogger(__name__)


def store_root() -> Path:
    """The folder with `mlruns`: that of the project, also where DVC runs a stage in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT", "."))


class Training(NamedTuple):
    """The long first session of a network, and the folder that it leaves.

    `start`: the filters of its hidden layers; empty: those of the settings. A start of its own belongs
    to the `strategy` that has it, and lies in the folder of its minimization.
    """

    task: str
    seed: int
    start: tuple[int, ...] = ()
    strategy: str = ""

    @property
    def name(self) -> str:
        start = f"from-{'-'.join(map(str, self.start))}-" if self.start else ""
        return f"{self.task}-{start}seed-{self.seed}"

    @property
    def command(self) -> str:
        start = f" --start {','.join(map(str, self.start))}" if self.start else ""
        return f"train {self.task}{start} --seed {self.seed}"

    @property
    def output(self) -> Path:
        if self.strategy:
            return Job(self.task, self.strategy, self.seed).output / "start"
        return TRAINED / self.name

    @property
    def result(self) -> Path:
        """The file with sizes and scores."""
        return self.output / "training.json"

    @property
    def title(self) -> str:
        return f"train {self.name}"


class Baseline(NamedTuple):
    """The training on of an untouched network, and the folder that it leaves."""

    task: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-seed-{self.seed}"

    @property
    def command(self) -> str:
        return f"baseline {self.task} --seed {self.seed}"

    @property
    def output(self) -> Path:
        return BASELINES / self.name

    @property
    def budget(self) -> Path:
        """The file with the number of its training steps."""
        return BUDGET / f"{self.name}.json"

    @property
    def result(self) -> Path:
        """The file with sizes and scores."""
        return self.output / "result.json"

    @property
    def title(self) -> str:
        return f"baseline {self.name}"


class Job(NamedTuple):
    """One minimization of the pipeline, and the folder that it leaves; `start` as for its training."""

    task: str
    strategy: str
    seed: int
    start: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.task}-{self.strategy}-seed-{self.seed}"

    @property
    def command(self) -> str:
        return f"minimize {self.task} --strategy {self.strategy} --seed {self.seed}"

    @property
    def output(self) -> Path:
        return MINIMIZED / self.name

    @property
    def result(self) -> Path:
        """The file with sizes and scores."""
        return self.output / "result.json"

    @property
    def title(self) -> str:
        return f"minimize {self.name}"

    @property
    def training(self) -> Training:
        return Training(self.task, self.seed, self.start, self.strategy if self.start else "")


def pictures_folder(minimization: Path, decision: int) -> Path:
    """Where a minimization's folder has the pictures of the network after a decision; 0: the initial one."""
    return minimization / "pictures" / f"{decision:03}"


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
