"""The stage that registers a task's network: which one, and with what words."""

from __future__ import annotations

import logging

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.errors import UserError
from selfscale.nn.metrics import Evaluator
from selfscale.paths import PREPARED, REPORTS, TARGETS, Job, store_root
from selfscale.pipeline.notes import noted
from selfscale.pipeline.pick import picked
from selfscale.reporting import pareto, statistics
from selfscale.reporting.model_card import card
from selfscale.settings import Settings
from selfscale.tracking import registry
from selfscale.tracking.champions import Standing
from selfscale.tracking.delivery import deliver_abandoned
from selfscale.tracking.store import find_run, open_store

log = logging.getLogger(__name__)


def register(settings: Settings, task: str) -> Standing:
    """Register the network that was picked, or that the rule of `registry` chooses.

    Returns what became of the alias `champion`.
    """
    rule, comparison = settings.registry, files.read_json(REPORTS / "comparison.json", "compare")
    chosen = picked(comparison["results"], task)
    result = chosen[0] if chosen else pareto.choose_by_rule(comparison, task, rule)
    job = Job(task, result["strategy"], result["seed"])
    made_of = TARGETS / task / "manifest.json"
    targets = files.read_json(made_of, f"targets {task}")
    if files.content(made_of) != result.get("targets"):
        raise UserError(
            f"{made_of}: is not what {job.name} was made from; "
            "run `selfscale train`, `minimize` and `compare` again"
        )
    if not chosen and not pareto.within_tolerance(result, rule):
        log.warning("%s: no network is within registry.tolerance; the best test score is taken", task)
    prepared = files.read_json(PREPARED / "manifest.json", "prepare")
    model = chosen[1] if chosen else job.output / "compact.keras"
    network = files.load_model(model, job.command)
    evaluator = Evaluator(network, discrete=targets["discrete"])
    tested = evaluator(load_split(PREPARED, TARGETS / task, "test"), (result["loss"],))
    interval = statistics.over_images(tested.sums[result["loss"]])
    words = card(result, prepared, targets, rule, interval, picked=chosen is not None)
    found = noted(job)
    client = open_store(store_root())
    deliver_abandoned(client, store_root())
    run = find_run(client, task, found["key"], {"kind": "minimization"}) if found else None
    return registry.register(client, task, model, result, words, run.info.run_id if run else None)
