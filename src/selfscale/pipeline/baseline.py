"""The baseline of the comparison: what more training alone does, without any removal."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.decisions import SessionRecord
from selfscale.nn.fcn import filters_per_layer, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan, Trainer
from selfscale.paths import PREPARED, TARGETS, Baseline, Training, only_one
from selfscale.pipeline import problem_training
from selfscale.pipeline.execution import Execution, about
from selfscale.pipeline.results import as_rows, on_test
from selfscale.pipeline.train import trainer_for
from selfscale.progress import SILENT, Progress
from selfscale.schemas import Budget
from selfscale.settings import Settings

log = logging.getLogger(__name__)


def train_baseline(settings: Settings, baseline: Baseline, progress: Progress = SILENT) -> None:
    """Train the untouched initial network on, and write `models/baseline/TASK-seed-N`.

    One session on a fresh Adam, as long as the longest minimization of this task and seed among
    `runs.strategies`: so no minimization had more training. What a user would do is done: of the
    initial and the trained-on network, that with the better validation score is kept. `result.json`
    has what a minimization's `result.json` has, as far as it applies.

    Raises:
        UserError: the initial network, or the number of steps, is missing.
    """
    task, seed = baseline.task, baseline.seed
    if settings.tasks[task].problem:
        return problem_training.train_baseline(settings, baseline, progress)
    with only_one(f"baseline-{baseline.name}"):
        steps = files.read_json(baseline.budget, "budget", Budget)["steps"]
        initial = Training(task, seed).output / "initial.keras"
        network = MaskedNetwork(files.load_model(initial, f"train {task} --seed {seed}"))
        trainer = trainer_for(settings, task, network)
        told = progress.job(baseline.title, most=steps, exact=True, filters=trainer.network.filters_kept)
        out, clock = baseline.output, baseline.clock
        described = about(settings, baseline, {"network", "training", "evaluation"})
        with Execution(out, clock, described) as execution:
            baseline.result.unlink(missing_ok=True)  # it says that the record is whole
            session, result = trained_result(trainer, baseline, steps, told)
            files.write_csv(out / "curve.csv", ("step", "loss", "score"), as_rows(session))
            files.write_json(baseline.result, result)
            execution.finish(out, clock, session.seconds)
        log.info(
            "%s, seed %s: %s steps, kept the %s network, test score %.5g",
            *(task, seed, session.steps, result["kept"], result["test"]["final"][trainer.loss]),
        )


def trained_result(
    trainer: Trainer, baseline: Baseline, steps: int, progress: Progress
) -> tuple[SessionRecord, dict[str, Any]]:
    """The session, and what `result.json` says of it."""
    model = trainer.network.model
    session, kept, scores = trained_on(trainer, baseline.task, baseline.seed, steps, progress)
    return session, {
        "task": baseline.task,
        "seed": baseline.seed,
        "loss": trainer.loss,
        "steps": steps,
        "ended": session.ended,
        "kept": kept,
        "filters_kept": filters_per_layer(model),
        **size(model)._asdict(),
        **scores,
        "decisions": 0,
        "training_steps": session.steps,
    }


def trained_on(
    trainer: Trainer, task: str, seed: int, steps: int, progress: Progress
) -> tuple[SessionRecord, str, dict[str, Any]]:
    """The session, which network is kept, and the scores of the initial and of that one."""
    trained = Training(task, seed).read()
    before = {key: trained[key] for key in ("validation", "test", "test_interval")}
    test = load_split(PREPARED, TARGETS / task, "test")
    # Five numbers: no session of a training or a minimization draws the same batches.
    rng = np.random.default_rng((seed, 0, 0, 0, 1))
    session, _ = trainer.session(Plan(steps, trainer.settings.evaluations), rng, progress)
    evaluation = trainer.evaluator(trainer.validation)
    better = (
        session.ended == "completed" and evaluation.score(trainer.loss) < before["validation"][trainer.loss]
    )
    kept = before
    if better:
        kept = {"validation": evaluation.scores(), **on_test(trainer.evaluator(test), trainer.loss)}
    both = {key: {"initial": before[key], "final": kept[key]} for key in before}
    return session, "trained-on" if better else "initial", both
