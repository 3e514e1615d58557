"""The curve of score against size: every network that a minimization kept on its way is a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfscale.paths import Job
from selfscale.reporting import statistics
from selfscale.reporting.statistics import Estimate, estimate

# By strategy: (multiply-accumulates per pixel, test score).
Fronts = dict[str, list[tuple[float, Estimate]]]


class Point(NamedTuple):
    """One network: where it comes from (decision 0: the initial one), its size, and its scores."""

    strategy: str
    seed: int
    decision: int
    filters_kept: list[int]
    parameters: int
    macs_per_pixel: float
    validation: float
    test: float
    path: Path


def points(results: Mapping[str, Mapping[str, Any]], jobs: Sequence[Job]) -> list[Point]:
    """All points of some minimizations, by the results of each by name."""
    found = []
    for job in jobs:
        for kept in on_the_way(results[job.name]):
            number = kept["decision"]
            later = job.output / "kept" / f"{number:03}.keras"
            path = later if number else job.training.output / "initial.keras"
            found.append(Point(job.strategy, job.seed, **kept, path=path))
    return found


def on_the_way(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a result says of its networks: the initial one (decision 0), and all that were kept."""
    initial = {
        "decision": 0,
        "filters_kept": result["filters_initial"],
        "parameters": result["parameters_initial"],
        "macs_per_pixel": result["macs_per_pixel_initial"],
        "validation": statistics.score(result, "validation", "initial"),
        "test": statistics.score(result, "test", "initial"),
    }
    return [initial, *result["kept"]]


def front(found: Sequence[Point]) -> list[Point]:
    """Those that none of the same size or smaller beats on the validation images, smallest first.

    (Pareto front of multiply-accumulates per pixel and validation score.)
    """
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (point.macs_per_pixel, point.validation)):
        if not best or point.validation < best[-1].validation:
            best.append(point)
    return best


def mean_fronts(task_jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]]) -> Fronts:
    """Each strategy's `mean_front`."""
    names = dict.fromkeys(job.strategy for job in task_jobs)
    return {
        name: mean_front(points(results, [job for job in task_jobs if job.strategy == name]))
        for name in names
    }


def mean_front(found: Sequence[Point]) -> list[tuple[float, Estimate]]:
    """(multiply-accumulates per pixel, test score) with intervals over the seeds.

    At each size that is on a seed's front, and from which on every seed has a network: of each seed
    the best network on the validation images that is no larger.
    """
    fronts = [front([point for point in found if point.seed == seed]) for seed in {p.seed for p in found}]
    first = max(one[0].macs_per_pixel for one in fronts)
    sizes = sorted({p.macs_per_pixel for one in fronts for p in one if p.macs_per_pixel >= first})
    return [(most, estimate([largest_within(one, most).test for one in fronts])) for most in sizes]


def largest_within(one: Sequence[Point], most: float) -> Point:
    return [point for point in one if point.macs_per_pixel <= most][-1]
