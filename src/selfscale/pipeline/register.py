"""The stage that registers a task's network: which one, and with what words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selfscale import files, schemas
from selfscale.errors import UserError
from selfscale.paths import PREPARED, REPORTS, TARGETS, Job, store_root
from selfscale.pipeline.pick import picked
from selfscale.processes import import_tensorflow
from selfscale.reporting import pareto
from selfscale.reporting.model_card import card
from selfscale.settings import Settings
from selfscale.tracking import registry
from selfscale.tracking.champions import Standing, model_name, propose
from selfscale.tracking.store import open_store
from selfscale.tracking.sync import end_killed, sync_record

log = logging.getLogger(__name__)


def register(settings: Settings, task: str) -> Standing:
    """Register the network that was picked, or that the rule of `registry` chooses.

    Returns what became of the alias `champion`.
    """
    rule, comparison = (
        settings.registry,
        files.read_json(REPORTS / "comparison.json", "compare", schemas.Comparison),
    )
    chosen = picked(comparison["results"], task)
    result = chosen[0] if chosen else pareto.choose_by_rule(comparison, task, rule)
    job = Job(task, result["strategy"], result["seed"])
    made_of = TARGETS / task / "manifest.json"
    if not made_of.exists() or files.content(made_of) != result.get("targets"):
        raise UserError(
            f"{made_of}: is not what {job.name} was made from; run `dvc repro` to bring both up to date"
        )
    if not chosen and not rule.within(*pareto.validation_scores(result)):
        log.warning("%s: no network is within registry.tolerance; the best validation score is taken", task)
    model = chosen[1] if chosen else job.output / "compact.keras"
    client = open_store(store_root())
    if not model.exists():
        raise UserError(f"{model}: is missing; run `selfscale {job.command}` first")
    end_killed(client, store_root())
    wanted = rule.fast and not settings.tasks[task].problem  # whose network is of any kind
    run_id, wins = sync_record(client, job.output, job.clock), None if chosen else rule
    if known := registry.find(client, model_name(task), files.sha256(model), wanted):
        return propose(client, known, wins)
    with TemporaryDirectory() as folder:
        import_tensorflow()  # without its many lines
        from selfscale.nn import devices

        devices.configure(settings.execution)
        fast = on_blocks(model, task, Path(folder)) if wanted else None
        words = described(settings, job, result, model, fast, picked=chosen is not None)
        return registry.register(client, task, model, result, words, run_id, wins, fast)


def on_blocks(model: Path, task: str, folder: Path) -> registry.OnBlocks | None:
    """Write the network as one on blocks of pixels, verified; None, with a warning, if that cannot be."""
    from selfscale.inference import export, fast, samples

    plain, written = files.load_model(model, f"minimize {task}"), folder / "fast.keras"
    try:
        blocked, block = fast.on_blocks(plain)
        (image,), _ = samples.images("validation", 1)
        export.export(plain, "keras", written, image, fast=blocked)
    except UserError as error:
        reason = str(error).removeprefix("--fast: ")
        log.warning("%s: registry.fast: %s; the plain network is registered", task, reason)
        return None
    return registry.OnBlocks(written, block)


def described(
    settings: Settings,
    job: Job,
    result: Mapping[str, Any],
    model: Path,
    fast: registry.OnBlocks | None,
    *,
    picked: bool,
) -> str:
    """The model card, with the milliseconds that were or are measured."""
    from selfscale.inference.latency import measured

    prepared = None
    if not settings.tasks[job.task].problem:
        prepared = files.read_json(PREPARED / "manifest.json", "prepare", schemas.Prepared)
    targets = files.read_json(TARGETS / job.task / "manifest.json", f"targets {job.task}", schemas.Targets)
    initial = job.training.output / "initial.keras"
    speeds = measured([model], initial, job.command)
    block = fast.block if fast else ""
    return card(
        result, prepared, targets, settings.registry, speeds[model], speeds[initial], block, picked=picked
    )
