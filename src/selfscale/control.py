"""The control of the comparison: what more training alone does, without any removal."""

from __future__ import annotations

import logging
import time

import numpy as np

from selfscale import files, made
from selfscale.config import Settings
from selfscale.dataset import load_split
from selfscale.events import SILENT, Progress
from selfscale.network import filters_per_layer, size
from selfscale.pipeline import recorder, trainer_for
from selfscale.report import longest
from selfscale.switches import SwitchedNetwork
from selfscale.training import Plan
from selfscale.workspace import PREPARED, TARGETS, Control, Training, only_one

log = logging.getLogger(__name__)


def train_control(settings: Settings, task: str, seed: int, progress: Progress = SILENT) -> None:
    """Train the untouched initial network on, and write `models/control/TASK-seed-N.json`.

    One session on a fresh Adam, as long as the longest minimization of this task and seed among
    `runs.strategies`: so no minimization had more training. What a user would do is done: of the
    initial and the trained-on network, that with the better validation score is kept. The file
    has what a minimization's `result.json` has, as far as it applies.

    Raises:
        UserError: an initial network, or the result of a minimization, is missing.
    """
    control = Control(task, seed)
    with only_one(f"control-{control.name}"):
        started = time.time()
        steps = longest(settings, control)
        initial = Training(task, seed).output / "initial.keras"
        network = SwitchedNetwork(files.load_model(initial, f"train {task} --seed {seed}"))
        trainer = trainer_for(settings, task, network)
        splits = {"validation": trainer.validation, "test": load_split(PREPARED, TARGETS / task, "test")}

        def scores() -> dict[str, dict[str, float]]:
            return {name: trainer.evaluator(split).scores() for name, split in splits.items()}

        before = scores()
        # Five numbers: no session of a training or a minimization draws the same batches.
        rng = np.random.default_rng((seed, 0, 0, 0, 1))
        told = progress.job(control.title, most=steps, exact=True, filters=trainer.network.filters_kept)
        session, _ = trainer.session(Plan(steps, settings.training.evaluations), rng, told)
        after = scores()
        better = (
            session.ended == "completed"
            and after["validation"][trainer.loss] < before["validation"][trainer.loss]
        )
        kept = after if better else before
        filters, (parameters, macs) = filters_per_layer(network.model), size(network.model)
        result = {
            "task": task,
            "seed": seed,
            "loss": trainer.loss,
            "steps": steps,
            "ended": session.ended,
            "kept": "trained-on" if better else "initial",
            "filters_kept": filters,
            "parameters": parameters,
            "macs_per_pixel": macs,
            **{split: {"initial": before[split], "final": kept[split]} for split in splits},
            "decisions": 0,
            "training_steps": session.steps,
        }
        files.write_json(control.output, result)
        with recorder(settings, "control", task=task, seed=seed, started=started) as run:
            note = f"{session.steps} steps; the {result['kept']} network is better on validation."
            run.record("finish", [control.output], session=session, result=result, note=note)
        made.note(control, made.inputs_of_control(settings, control, steps))
        log.info(
            "%s, seed %s: %s steps, kept the %s network, test score %.5g",
            *(task, seed, session.steps, result["kept"], kept["test"][trainer.loss]),
        )
