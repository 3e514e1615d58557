"""The training stages of the pipeline: settings and files in, files and MLflow runs out."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.data.targets import check_loss
from selfscale.decisions import SessionRecord
from selfscale.errors import UserError
from selfscale.nn.devices import check_batch, check_mixed_precision, visible_gpus
from selfscale.nn.fcn import build, calibrate, filters_per_layer, size
from selfscale.nn.feeding import feed_for
from selfscale.nn.input_pipeline import spread
from selfscale.nn.losses import without_skill
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation, Evaluator
from selfscale.nn.trainer import Compilation, Trainer
from selfscale.paths import PREPARED, TARGETS, Training, only_one
from selfscale.pipeline import problem_training
from selfscale.pipeline.execution import Execution, about
from selfscale.pipeline.results import as_rows, on_test
from selfscale.progress import SILENT, Progress
from selfscale.search.first_session import best_start, first_session
from selfscale.settings import Settings

CALIBRATION_IMAGES = 16

log = logging.getLogger(__name__)


def trainer_for(settings: Settings, task: str, network: MaskedNetwork) -> Trainer:
    """A trainer on the task's prepared images; decisions use at most `evaluation.max_images` of them."""
    validation = load_split(PREPARED, TARGETS / task, "validation")
    half = settings.execution.mixed_precision
    train = load_split(PREPARED, TARGETS / task, "train")
    loss = check_loss(task, settings.tasks[task], discrete=train.discrete)
    side = min(settings.training.crop or train.images.shape[1], train.images.shape[1])
    check_batch(settings.training.batch, side, sum(block.filters for block in network.blocks))
    trainer = Trainer(
        network,
        train,
        spread(validation, settings.evaluation.max_images),
        loss=loss,
        settings=settings.training,
        evaluator=Evaluator(
            network.model,
            discrete=train.discrete,
            threshold=settings.evaluation.threshold,
        ),
        compilation=Compilation(settings.execution.xla, half),
        feed=feed_for(train, settings.training.crop, "GPU:0" if visible_gpus() else None),
    )
    if half:
        check_mixed_precision(network.model, trainer.evaluator, trainer.validation, trainer.loss)
    return trainer


def train(
    settings: Settings,
    training: Training,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """The long first session of one network; writes `initial.keras`, `training.json` and `curve.csv`.

    They go into `out`, by default the training's own folder.

    A network that dies is restarted with fresh weights, as often as `training.first.restarts` says.

    Raises:
        UserError: it died each time.
    """
    task, seed = training.task, training.seed
    if settings.tasks[task].problem:
        return problem_training.train(settings, training, progress)
    settings, out = settings.starting_from(training.start), out or training.output
    with only_one(f"train-{training.name}"):
        # What may be missing is found before the work.
        test_split = load_split(PREPARED, TARGETS / task, "test")
        described = about(settings, training, {"network", "training", "evaluation"})
        clock = training.clock
        with Execution(out, clock, described) as execution:
            (out / "training.json").unlink(missing_ok=True)  # it says that the record is whole
            (model, starts, session, validation), steps = living_network(settings, training, progress)
            trainer = trainer_for(settings, task, MaskedNetwork(model))
            test = trainer.evaluator(test_split)
            result = {
                "task": task,
                "seed": seed,
                "starts": starts,
                "ended": session.ended,
                "training_steps": steps,
                "filters": filters_per_layer(model),
                **size(model)._asdict(),
                "validation": validation.scores(),
                **on_test(test, trainer.loss),
            }
            files.save_model(model, out / "initial.keras")
            files.write_csv(out / "curve.csv", ("step", "loss", "score"), as_rows(session))
            files.write_json(out / "training.json", result)  # the last one: it says that all is there
            ended = f"{session.ended} after {session.steps} steps"
            execution.finish(out, clock, session.seconds)
        score = validation.score(trainer.loss)
        log.info("%s, seed %s: %s, score %.5g", task, seed, ended, score)


class Started(NamedTuple):
    """A network after its first session, which was that of the n-th start."""

    model: keras.Model
    start: int
    session: SessionRecord
    validation: Evaluation


def living_network(settings: Settings, training: Training, progress: Progress) -> tuple[Started, int]:
    """A network after its first session, and the training steps of all starts that it took.

    A network that died starts afresh, and so does one that has learnt nothing: hardly better, by less than
    `training.first.min_gain`, than an output that is the same everywhere, as a single filter may be
    that puts out 1 almost everywhere, where a soft F1 has no gradient. Of those the best one is taken
    if no start does better: the task may be such.
    """
    task, seed, first = training.task, training.seed, settings.training.first
    found: list[Started] = []
    steps = 0
    for attempt in range(first.restarts + 1):
        fresh = partial(new_network, settings, task, seed, attempt)
        model, told = fresh(0), progress.job(training.title)
        trainer = trainer_for(settings, task, MaskedNetwork(model))
        steps += best_start(trainer, fresh, seed, attempt, told)
        session, validation = first_session(trainer, seed, attempt, told)
        ended, steps = session.ended, steps + session.steps
        if ended in ("completed", "stagnated"):
            found.append(Started(model, attempt + 1, session, validation))
            constant = without_skill(trainer.loss, trainer.validation.targets)
            skill = 1 - validation.score(trainer.loss) / constant if constant else 1.0
            if skill >= first.min_gain:
                return found[-1], steps
            ended = f"hardly better ({skill:.1%}) than the same output everywhere"
        log.warning("%s, seed %s: start %s ended %s", task, seed, attempt + 1, ended)
    if found:
        return min(found, key=lambda one: one.validation.score(trainer.loss)), steps
    raise UserError(
        f"{task}, seed {seed}: the network is {session.ended} after each of {attempt + 1} starts; "
        "lower training.learning_rate or change network.init_deviation"
    )


def new_network(settings: Settings, task: str, seed: int, attempt: int, start: int) -> keras.Model:
    """Fresh weights for each seed, attempt and start, calibrated to some training images."""
    chosen = settings.network
    model = build(
        chosen.widths,
        kernel=chosen.kernel,
        mean=chosen.init_mean,
        deviation=chosen.init_deviation,
        seed=(seed, attempt * settings.training.first.starts + start),
    )
    some = spread(load_split(PREPARED, TARGETS / task, "train"), CALIBRATION_IMAGES)
    level = float(some.targets.mean(dtype=np.float64))
    calibrate(model, some.images / np.float32(255), level, center=chosen.center)
    return model
