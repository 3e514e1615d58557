"""Choose networks by score and size: every network on the way of a minimization is a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfscale.errors import UserError
from selfscale.paths import REPORTS, Job
from selfscale.reporting.statistics import Estimate, Result, estimate, score
from selfscale.settings import Registry

# By strategy: (multiply-accumulates per pixel, test score).
MeanFronts = dict[str, list[tuple[float, Estimate]]]


class Candidate(NamedTuple):
    """A network: its minimization and decision (0: the initial network), its size, scores and file."""

    strategy: str
    seed: int
    decision: int
    filters_kept: list[int]
    parameters: int
    macs_per_pixel: float
    validation: float
    test: float
    test_interval: dict[str, float | None]
    path: Path


def candidates(results: Mapping[str, Result], jobs: Sequence[Job]) -> list[Candidate]:
    """List the networks of some minimizations; `results` are by name."""
    found = []
    for job in jobs:
        for network in networks_of(results[job.name]):
            number = network["decision"]
            later = job.output / "kept" / f"{number:03}.keras"
            path = later if number else job.training.output / "initial.keras"
            found.append(Candidate(job.strategy, job.seed, **network, path=path))
    return found


def networks_of(result: Result) -> list[dict[str, Any]]:
    """List the networks of a result: the initial one (decision 0), and those on its way, accepted or not."""
    initial = {
        "decision": 0,
        "filters_kept": result["filters_initial"],
        "parameters": result["parameters_initial"],
        "macs_per_pixel": result["macs_per_pixel_initial"],
        "validation": score(result, "validation", "initial"),
        "test": score(result, "test", "initial"),
        "test_interval": result["test_interval"]["initial"],
    }
    return [initial, *result["kept"]]


def pareto_front(found: Sequence[Candidate]) -> list[Candidate]:
    """Keep those that none of the same size or smaller beats on the validation images, smallest first.

    Size is multiply-accumulates per pixel.
    """
    best: list[Candidate] = []
    for candidate in sorted(found, key=lambda each: (each.macs_per_pixel, each.validation)):
        if not best or candidate.validation < best[-1].validation:
            best.append(candidate)
    return best


def mean_fronts(jobs: Sequence[Job], results: Mapping[str, Result]) -> MeanFronts:
    """Return each strategy's `mean_front`, of the minimizations of one task."""
    names = dict.fromkeys(job.strategy for job in jobs)
    return {
        name: mean_front(candidates(results, [job for job in jobs if job.strategy == name])) for name in names
    }


def mean_front(found: Sequence[Candidate]) -> list[tuple[float, Estimate]]:
    """Average the Pareto fronts of the seeds: (multiply-accumulates per pixel, test score).

    At each size that is on a seed's front, and from which on every seed has a network: of each seed
    the best network on the validation images that is no larger.
    """
    seeds = {candidate.seed for candidate in found}
    fronts = [pareto_front([each for each in found if each.seed == seed]) for seed in seeds]
    first = max(front[0].macs_per_pixel for front in fronts)
    sizes = {each.macs_per_pixel for front in fronts for each in front if each.macs_per_pixel >= first}

    def tests(most: float) -> list[float]:
        return [[each.test for each in front if each.macs_per_pixel <= most][-1] for front in fronts]

    return [(most, estimate(tests(most))) for most in sorted(sizes)]


def best_within(
    front: Sequence[Candidate],
    task: str,
    *,
    max_macs: float | None = None,
    min_score: float | None = None,
    max_ms: float | None = None,
    milliseconds: Mapping[Path, float],
) -> Candidate:
    """Choose from a Pareto front by validation.

    Args:
        front: What `pareto_front` returned.
        task: Its task, for error messages.
        max_macs: Take the best one with at most so many multiply-accumulates per pixel,
        max_ms: or with at most so many milliseconds per megapixel,
        min_score: or the smallest one whose validation score (lower is better) is at least as good.
        milliseconds: Per megapixel, by the model's file; needed for `max_ms` only.

    Raises:
        UserError: No network is like that.
    """
    fitting = [
        each
        for each in front
        if (max_macs is None or each.macs_per_pixel <= max_macs)
        and (min_score is None or each.validation <= min_score)
        and (max_ms is None or milliseconds[each.path] <= max_ms)
    ]
    if fitting:
        return fitting[0] if min_score is not None else fitting[-1]
    nearest = f"{front[0].macs_per_pixel:g} to {front[-1].macs_per_pixel:g} multiply-accumulates per pixel"
    if milliseconds:
        low, high = min(milliseconds.values()), max(milliseconds.values())
        nearest += f", {low:.1f} to {high:.1f} ms per megapixel,"
    raise UserError(
        f"{task}: no network is like that; there are {nearest} with validation scores of "
        f"{front[0].validation:.4g} to {front[-1].validation:.4g}"
    )


def choose_by_rule(comparison: Mapping[str, Any], task: str, rule: Registry) -> dict[str, Any]:
    """Choose the result of a task to register, by validation.

    Where none is within the tolerance, the best score decides, whatever the rule.

    Raises:
        UserError: The comparison has no result of the task.
    """
    results = [result for result in comparison["results"].values() if result["task"] == task]
    if not results:
        raise UserError(
            f"{REPORTS / 'comparison.json'}: has no result of {task}; run `selfscale compare` again"
        )
    return min(results, key=lambda result: rule.order(*validation_scores(result), result["macs_per_pixel"]))


def validation_scores(result: Result) -> tuple[float, float]:
    """Return the validation scores of the final and of the initial network."""
    return score(result, "validation"), score(result, "validation", "initial")
