"""A minimization's state on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from tensorflow.errors import OpError

from selfscale import files
from selfscale.decisions import DecisionRecord
from selfscale.errors import UserError
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.compaction import with_filters
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.trainer import Trainer
from selfscale.paths import STATE, TARGETS, Job, Training
from selfscale.pipeline.execution import EXECUTION
from selfscale.pipeline.inputs import own_code
from selfscale.search.growth_trials import replayed
from selfscale.settings import Settings

STATE_FILE = "state.npz"
RECORDS = TypeAdapter(tuple[DecisionRecord, ...])  # from JSON, which has no tuples


@dataclass(frozen=True)
class Done:
    """What a minimization had done when it was last saved."""

    finished: bool
    records: tuple[DecisionRecord, ...]
    snapshot: Checkpoint


def inputs_of_training(settings: Settings, training: Training) -> str:
    """A hash of all that a network's first session depends on."""
    chosen = settings.starting_from(training.start)
    return _inputs(chosen, training.task, {"network", "training", "evaluation"}, seed=training.seed)


def inputs_of_minimization(settings: Settings, job: Job) -> str:
    """A hash of all that a minimization's decisions depend on; its initial network has to be there."""
    strategy = settings.strategies[job.strategy]
    growth = {"growth", "scaling"} if strategy.scaling else set()
    return _inputs(
        settings.starting_from(job.start),
        job.task,
        {"network", "training", "evaluation", "minimization"} | growth,
        strategy=strategy.model_dump(),
        own_code=own_code(settings, job.strategy),
        initial=files.content(job.training.output),
    )


def _inputs(settings: Settings, task: str, sections: set[str], **more: Any) -> str:
    inputs = settings.model_dump(include={**dict.fromkeys(sections, True), "execution": EXECUTION}) | more
    inputs["task"] = settings.tasks[task].model_dump()
    inputs["targets"] = files.content(TARGETS / task / "manifest.json")
    rooms = Path(files.__file__).parent
    inputs["code"] = [files.content(rooms / room, "**/*.py") for room in ("nn", "search", "library")]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def state_folder(job: Job, inputs: str) -> Path:
    """One folder per minimization and hash of its inputs: with others it starts anew.

    It is a record in progress, with the networks that were kept and, in `state.npz`, all that it takes to go
    on.
    """
    return STATE / "minimizations" / f"{job.name}-{inputs}"


def start_folder(settings: Settings, job: Job) -> Path:
    """Where the trained start of a strategy lies that has one of its own."""
    return STATE / "starts" / f"{job.name}-{inputs_of_training(settings, job.training)}"


def save(folder: Path, trainer: Trainer, records: list[DecisionRecord], *, finished: bool = False) -> None:
    content = [asdict(record) for record in records]
    checkpoint = Checkpoint.take(trainer, finished=finished, records=content)
    files.write_bytes(folder / STATE_FILE, checkpoint.to_bytes())


def delete_others(folder: Path, job: Job, current_start: Path | None) -> None:
    """Delete what earlier minimizations of the same name left, which had other settings or inputs."""
    for folders in (folder.parent, STATE / "starts"):
        for other in folders.glob(f"{job.name}-{'[0-9a-f]' * 16}"):
            if other not in (folder, current_start):
                shutil.rmtree(other, ignore_errors=True)


def load_if_wanted(folder: Path, waited: bool) -> Done | None:
    """The state to go on from, if there is one.

    A finished one is wanted only by a process that waited for the one that finished it: it writes
    the same outputs without training again. Else somebody asked for a new run.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    done = load(path)
    return done if waited or not done.finished else None


def load(path: Path) -> Done:
    """Raises UserError if the file is missing or damaged."""
    try:
        snapshot = Checkpoint.from_bytes(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: is no snapshot that can be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; delete it to start anew") from error
    data = snapshot.data
    try:
        return Done(bool(data["finished"]), RECORDS.validate_python(data["records"]), snapshot)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a snapshot of a minimization") from error


def restore(done: Done, trainer: Trainer, path: Path) -> Trainer:
    """The initial network's trainer brought to that state, or, if it became smaller, a new one.

    Raises UserError if the snapshot is of a network of another shape.
    """
    state = done.snapshot.network
    try:
        larger = replayed(trainer.network, done.records)
        if larger is not trainer.network:
            trainer = trainer.of(larger)
        if state.widths != trainer.network.widths:
            raise ValueError(f"it has {state.widths} filters, the network {trainer.network.widths}")
        if state.layers != trainer.network.layers:
            trainer = trainer.of(with_layers(trainer.network, state.layers))
        if not trainer.network.has_filters_of(state):
            trainer = trainer.of(with_filters(trainer.network, state.layers, state.indices))
        done.snapshot.restore(trainer)
    except (ValueError, TypeError, LookupError, OpError) as error:
        raise UserError(f"{path}: is a snapshot of another network than the trained one") from error
    return trainer


def judged_anew(records: Sequence[DecisionRecord], sums: np.ndarray) -> list[DecisionRecord]:
    """The records for a trainer with other images: scores of former networks on the former images go.

    Only the network that was kept last can still be compared with; `sums` are its sums per photograph.
    """
    last = max((record.number for record in records if record.accepted), default=0)
    kept = tuple((float(a), float(b)) for a, b in sums)
    return [replace(record, photograph_sums=kept if record.number == last else ()) for record in records]
