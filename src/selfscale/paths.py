"""Where the pipeline's files lie below the project's folder, and who may write them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from selfscale import files, schemas

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


class Work:
    """A job of the pipeline, and the folder that it leaves."""

    kind: ClassVar[str]  # of its record
    verb: ClassVar[str]  # its command
    folder: ClassVar[Path]
    results: ClassVar[str] = "result.json"
    schema: ClassVar[type]  # what `result` holds
    task: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-seed-{self.seed}"

    @property
    def command(self) -> str:
        return f"{self.verb} {self.task} --seed {self.seed}"

    @property
    def title(self) -> str:
        return f"{self.verb} {self.name}"

    @property
    def output(self) -> Path:
        return self.folder / self.name

    @property
    def result(self) -> Path:
        """The file with sizes and scores."""
        return self.output / self.results

    def read(self) -> dict[str, Any]:
        """What that file says; UserError names the command to run if it is missing or damaged."""
        found: dict[str, Any] = files.read_json(self.result, self.command, self.schema)
        return found

    @property
    def clock(self) -> Path:
        """Where its clock lies once it has finished, and of a minimization only then."""
        return STATE / f"clocks/{self.kind}-{self.name}.json"


@dataclass(frozen=True)
class Training(Work):
    """The long first session of a network.

    `start`: the filters of its hidden layers; empty: those of the settings. A start of its own belongs
    to the `strategy` that has it, and lies in the folder of its minimization.
    """

    kind, verb, folder, results = "training", "train", TRAINED, "training.json"
    schema = schemas.Trained
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
        return super().output

    @property
    def clock(self) -> Path:
        if self.strategy:
            return STATE / f"clocks/start-{Job(self.task, self.strategy, self.seed).name}.json"
        return super().clock


@dataclass(frozen=True)
class Baseline(Work):
    """The training on of an untouched network."""

    kind, verb, folder, schema = "baseline", "baseline", BASELINES, schemas.BaselineResult
    task: str
    seed: int

    @property
    def budget(self) -> Path:
        """The file with the number of its training steps."""
        return BUDGET / f"{self.name}.json"


@dataclass(frozen=True)
class Job(Work):
    """One minimization; `start` as for its training."""

    kind, verb, folder, schema = "minimization", "minimize", MINIMIZED, schemas.Result
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
