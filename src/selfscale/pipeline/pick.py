"""Choosing a network from the curve of score against size, by what it may cost or has to reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selfscale import files
from selfscale.config import unknown
from selfscale.errors import UserError
from selfscale.paths import PICKED, Job
from selfscale.pipeline import compare as report
from selfscale.reporting import pareto as curve
from selfscale.settings import Settings

SIDE = 1024  # of the image on which milliseconds are measured
REPETITIONS = 5


def pick(
    settings: Settings,
    task: str,
    *,
    max_macs: float | None = None,
    min_score: float | None = None,
    max_ms: float | None = None,
    milliseconds: Callable[[Path], float],
) -> dict[str, Any]:
    """Choose a network of a task by validation, among all of `runs`; writes `models/picked/TASK.json`.

    The best one with at most `max_macs` multiply-accumulates per pixel, or at most `max_ms`
    milliseconds per megapixel, which `milliseconds` measures of a model's file; or the smallest one
    whose validation score (lower is better) is at least as good as `min_score`.

    Raises:
        UserError: a result is missing, or no network is like that.
    """
    best = networks(settings, task)
    fast = {point.path: milliseconds(point.path) for point in best} if max_ms is not None else {}
    fitting = [
        point
        for point in best
        if (max_macs is None or point.macs_per_pixel <= max_macs)
        and (min_score is None or point.validation <= min_score)
        and (max_ms is None or fast[point.path] <= max_ms)
    ]
    if not fitting:
        nearest = f"{best[0].macs_per_pixel:g} to {best[-1].macs_per_pixel:g} multiply-accumulates per pixel"
        if fast:
            nearest += f", {min(fast.values()):.1f} to {max(fast.values()):.1f} ms per megapixel,"
        raise UserError(
            f"{task}: no network is like that; there are {nearest} with validation scores of "
            f"{best[0].validation:.4g} to {best[-1].validation:.4g}"
        )
    chosen = fitting[0] if min_score is not None else fitting[-1]
    content = about(chosen, task)
    files.write_json(PICKED / f"{task}.json", content)
    return content | {"ms_per_megapixel": fast.get(chosen.path) or milliseconds(chosen.path)}


def networks(settings: Settings, task: str) -> list[curve.Point]:
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
    results = {job.name: files.read_json(job.output / "result.json", job.command) for job in jobs}
    return curve.front(curve.points(results, jobs))


def about(point: curve.Point, task: str) -> dict[str, Any]:
    return {**point._asdict(), "task": task, "path": point.path.as_posix()}


def picked(results: Mapping[str, Mapping[str, Any]], task: str) -> tuple[dict[str, Any], Path] | None:
    """The result of the network that was picked for a task, and its file; None if none was.

    `results` are the comparison's, by name. Raises UserError if it is not among them as it was picked.
    """
    path = PICKED / f"{task}.json"
    if not path.exists():
        return None
    chosen = files.read_json(path, f"pick {task}")
    name, model = Job(task, chosen["strategy"], chosen["seed"]).name, Path(chosen["path"])
    found = [point for point in results.get(name, {}).get("kept", []) if chosen.items() >= point.items()]
    if not (found or (name in results and chosen["decision"] == 0)) or not model.exists():
        raise UserError(f"{path}: the network that was picked is there no more; pick again or delete it")
    result = results[name]
    scores = {
        split: {"initial": result[split]["initial"], "final": {result["loss"]: chosen[split]}}
        for split in ("validation", "test")
    }
    sizes = {key: chosen[key] for key in ("filters_kept", "parameters", "macs_per_pixel")}
    return {**result, **sizes, **scores}, model


def measured_milliseconds(path: Path) -> float:
    """What one megapixel takes on this machine: the median over several calls of a compiled model."""
    import tensorflow as tf

    model = files.load_model(path, "minimize")
    image = np.random.default_rng(0).random((1, SIDE, SIDE, model.input_shape[-1]), dtype=np.float32)
    call = tf.function(lambda images: model(images, training=False))
    call(image)
    seconds = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        call(image).numpy()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e3 / (SIDE * SIDE / 1e6))
