"""The stage `worth`: tests every filter of a trained network, and reports what came out.

Unlike the stages of the pipeline it is not taken up again after a kill; its outputs are written
when all tests are over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfscale import files
from selfscale.nn.masking import MaskedNetwork
from selfscale.paths import REPORTS, STATE, Training, only_one, store_root
from selfscale.pipeline.execution import new_clock
from selfscale.pipeline.problems import refuse
from selfscale.pipeline.train import trainer_for
from selfscale.progress import SILENT, Progress, time_left
from selfscale.reporting.ablation_report import caption, content, heat_map, line, table
from selfscale.reporting.tables import markdown
from selfscale.search.ablation import AblationRecord, ablate, possible
from selfscale.settings import Settings
from selfscale.tracking.sync import Syncer

log = logging.getLogger(__name__)


def run_worth(
    settings: Settings, task: str, seed: int, progress: Progress = SILENT
) -> tuple[dict[str, Any], str]:
    """Test every filter of a trained network; writes `reports/worth-TASK-seed-N.json` and `.png`.

    Returns the content of the former, and the table of all tests, in Markdown.

    Raises:
        UserError: there is no trained network of that task and seed.
    """
    refuse(settings, task, "worth")
    name = f"worth-{task}-seed-{seed}"
    model = files.load_model(Training(task, seed).output / "initial.keras", f"train {task} --seed {seed}")
    with only_one(name):
        clock = new_clock()
        trainer = trainer_for(settings, task, MaskedNetwork(model))
        records = []
        steps, count = settings.minimization.removal.steps, 1 + len(possible(trainer.network))
        told = progress.job(f"worth {task}-seed-{seed}", most=count * steps, exact=True)
        for record in ablate(trainer, steps, seed=seed, progress=told):
            records.append(record)
            left = time_left(told.of(done=len(records) * steps).now()) if len(records) < count else ""
            log.info("%s, seed %s: %s", task, seed, "; ".join(filter(None, (line(record), left))))
        path, picture = REPORTS / f"{name}.json", REPORTS / f"{name}.png"
        about = {"task": task, "seed": seed, "session_steps": steps}
        report = about | content(trainer, records)
        files.write_json(path, report)
        files.write_bytes(picture, heat_map(f"{task}, seed {seed}", trainer.network, records))
        show(path, clock, records)
        return report, f"{caption(trainer, records)}\n\n{markdown(table(trainer.network, records))}"


def show(report: Path, clock: dict[str, Any], records: Sequence[AblationRecord]) -> None:
    """Write the clock of the tests that a report has, and show both in MLflow."""
    now = time.time()
    timed = {str(n): {"at": now, "seconds": record.session.seconds} for n, record in enumerate(records)}
    seconds = sum(record.session.seconds for record in records)
    known = {"status": "FINISHED", "ended": now, "content": files.content(report), "seconds": seconds}
    path = STATE / "clocks" / report.name
    files.write_json(path, {**clock, **known, "decisions": timed})
    with Syncer(store_root(), report, path):
        pass
