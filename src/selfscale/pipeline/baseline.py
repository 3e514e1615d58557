"""The baseline of the comparison: what more training alone does, without any removal."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.nn.fcn import filters_per_layer, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan, Trainer
from selfscale.paths import PREPARED, TARGETS, Baseline, Training, only_one
from selfscale.pipeline.train import recorder, trainer_for
from selfscale.progress import SILENT, Progress
from selfscale.records import SessionRecord
from selfscale.settings import Settings

log = logging.getLogger(__name__)


def train_baseline(settings: Settings, task: str, seed: int, progress: Progress = SILENT) -> None:
    """Train the untouched initial network on, and write `models/baseline/TASK-seed-N.json`.

    One session on a fresh Adam, as long as the longest minimization of this task and seed among
    `runs.strategies`: so no minimization had more training. What a user would do is done: of the
    initial and the trained-on network, that with the better validation score is kept. The file
    has what a minimization's `result.json` has, as far as it applies.

    Raises:
        UserError: the initial network, or the number of steps, is missing.
    """
    baseline = Baseline(task, seed)
    with only_one(f"baseline-{baseline.name}"):
        started = time.time()
        steps = files.read_json(baseline.budget, "budget")["steps"]
        initial = Training(task, seed).output / "initial.keras"
        network = MaskedNetwork(files.load_model(initial, f"train {task} --seed {seed}"))
        trainer = trainer_for(settings, task, network)
        told = progress.job(baseline.title, most=steps, exact=True, filters=trainer.network.filters_kept)
        session, kept, scores = trained_on(trainer, task, seed, steps, told)
        result = {
            "task": task,
            "seed": seed,
            "loss": trainer.loss,
            "steps": steps,
            "ended": session.ended,
            "kept": kept,
            "filters_kept": filters_per_layer(network.model),
            **size(network.model)._asdict(),
            **scores,
            "decisions": 0,
            "training_steps": session.steps,
        }
        files.write_json(baseline.output, result)
        with recorder(settings, "baseline", task=task, seed=seed, started=started) as run:
            note = f"{session.steps} steps; the {result['kept']} network is better on validation."
            run.record("finish", [baseline.output], session=session, result=result, note=note)
        log.info(
            "%s, seed %s: %s steps, kept the %s network, test score %.5g",
            *(task, seed, session.steps, result["kept"], result["test"]["final"][trainer.loss]),
        )


def trained_on(
    trainer: Trainer, task: str, seed: int, steps: int, progress: Progress
) -> tuple[SessionRecord, str, dict[str, Any]]:
    """The session, which network is kept, and by split the scores of the initial and of that one."""
    splits = {"validation": trainer.validation, "test": load_split(PREPARED, TARGETS / task, "test")}

    def scores() -> dict[str, dict[str, float]]:
        return {name: trainer.evaluator(split).scores() for name, split in splits.items()}

    before = scores()
    # Five numbers: no session of a training or a minimization draws the same batches.
    rng = np.random.default_rng((seed, 0, 0, 0, 1))
    session, _ = trainer.session(Plan(steps, trainer.settings.evaluations), rng, progress)
    after = scores()
    now, then = (found["validation"][trainer.loss] for found in (after, before))
    better = session.ended == "completed" and now < then
    kept = after if better else before
    both = {split: {"initial": before[split], "final": kept[split]} for split in splits}
    return session, "trained-on" if better else "initial", both
