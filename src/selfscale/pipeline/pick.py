"""Choosing a network from the curve of score against size, by what it may cost or has to reach."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfscale import files, schemas
from selfscale.errors import UserError, unknown
from selfscale.paths import PICKS, Job
from selfscale.pipeline import compare as report
from selfscale.reporting import pareto
from selfscale.settings import Settings

if TYPE_CHECKING:
    from selfscale.inference.latency import Speed  # with TensorFlow

log = logging.getLogger(__name__)


def pick(
    settings: Settings,
    task: str,
    *,
    max_macs: float | None = None,
    min_score: float | None = None,
    max_ms: float | None = None,
) -> dict[str, Any]:
    """Choose a network of a task by validation, among all of `runs`; notes it in `picks.json`.

    The best one with at most `max_macs` multiply-accumulates per pixel, or at most `max_ms`
    milliseconds per megapixel, measured here; or the smallest one whose validation score (lower is
    better) is at least as good as `min_score`.

    Raises:
        UserError: a result is missing, or no network is like that.
    """
    best = networks(settings, task)
    fast = speeds(settings, best, task) if max_ms is not None else {}
    chosen = pareto.best_within(
        best,
        task,
        max_macs=max_macs,
        min_score=min_score,
        max_ms=max_ms,
        milliseconds={path: speed.ms_per_megapixel for path, speed in fast.items()},
    )
    content = about(chosen, task)
    files.write_json(PICKS, read_picks() | {task: content})
    return content | (fast or speeds(settings, [chosen], task))[chosen.path]._asdict()


def networks(settings: Settings, task: str) -> list[pareto.Candidate]:
    """Those of all `runs` that none of the same size or smaller beats on validation, smallest first.

    Raises:
        UserError: the task is not in `runs`, or a result is missing.
    """
    if task not in settings.runs.tasks:
        if task in settings.tasks:
            raise UserError(
                f"{task}: is not in runs.tasks, so it has no results; add it there and minimize it"
            )
        raise UserError(unknown("task", task, settings.runs.tasks))
    jobs = [job for job in report.jobs(settings) if job.task == task]
    results = {job.name: job.read() for job in jobs}
    return pareto.pareto_front(pareto.candidates(results, jobs))


def about(point: pareto.Candidate, task: str) -> dict[str, Any]:
    return {**point._asdict(), "task": task, "path": point.path.as_posix()}


def read_picks() -> dict[str, Any]:
    """What was picked, by task.

    Raises:
        UserError: the file is damaged.
    """
    if not PICKS.exists():
        return {}
    try:
        return files.read_json(PICKS, "", dict[str, schemas.Pick])
    except UserError as error:
        message = f"{PICKS}: is damaged; write {{}} into it, and run `selfscale pick TASK` again"
        raise UserError(message) from error


def unpick(task: str) -> bool:
    """Let the rule of `registry` decide again; whether a network had been picked."""
    picks = read_picks()
    had = picks.pop(task, None) is not None
    files.write_json(PICKS, picks)
    return had


def picked(results: Mapping[str, Mapping[str, Any]], task: str) -> tuple[dict[str, Any], Path] | None:
    """The result of the network that was picked for a task, and its file; None if none was.

    `results` are the comparison's, by name. A pick that is not among them, since other networks were
    made after it, is told in a warning and counts as none.
    """
    chosen = read_picks().get(task)
    if chosen is None:
        return None
    name = Job(task, str(chosen.get("strategy")), chosen.get("seed", 0)).name
    model = Path(str(chosen.get("path")))
    found = [point for point in results.get(name, {}).get("kept", []) if chosen.items() >= point.items()]
    initial = name in results and chosen.get("decision") == 0
    if not (found or initial) or not model.exists():
        log.warning(
            "%s: the network that was picked for %s is there no more; the rule of `registry` decides "
            "(`selfscale pick %s` picks another one, or none with --clear)",
            *(PICKS, task, task),
        )
        return None
    result = results[name]
    scores = {
        split: {"initial": result[split]["initial"], "final": {result["loss"]: chosen[split]}}
        for split in ("validation", "test")
    }
    sizes = {key: chosen[key] for key in ("filters_kept", "parameters", "macs_per_pixel")}
    intervals = {**result["test_interval"], "final": chosen["test_interval"]}
    return {**result, **sizes, **scores, "test_interval": intervals}, model


def speeds(settings: Settings, points: Sequence[pareto.Candidate], task: str) -> dict[Path, Speed]:
    """What one megapixel takes each network on this machine."""
    from selfscale.inference.latency import measured  # with TensorFlow

    job = next(job for job in report.jobs(settings) if job.task == task)
    paths = [point.path for point in points]
    found = measured(paths, job.training.output / "initial.keras", job.command)
    return {path: found[path] for path in paths}
