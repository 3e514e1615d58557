"""Statistics of the comparison: means over seeds with their intervals, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from selfscale.nn.ratios import quotient, relative_change
from selfscale.search.acceptance import bounds

Result = Mapping[str, Any]  # the content of a minimization's result.json, or of a baseline

# The baselines count as one more strategy; the space keeps it apart from any strategy's name.
BASELINE = "untouched baseline"
CONFIDENCE = 0.95
# With fewer seeds even a difference of the same sign in all of them has p > 0.1.
FEWEST_SEEDS = 5
MOST_SIGNS = 2**16  # the permutation test is exact up to 16 seeds, and drawn at random beyond


class Estimate(NamedTuple):
    """A mean, and half the width of its 95 % interval; None where there are too few values for it."""

    mean: float | None
    half_width: float | None
    seeds: int


class PairedEstimate(NamedTuple):
    """The mean of paired differences, as `Estimate`, and the two-sided p value of "there is none"."""

    mean: float | None
    half_width: float | None
    seeds: int
    p: float | None


def score(result: Result, split: str, network: str = "final") -> float:
    """Return the task's loss of the `initial` or the `final` network, lower is better."""
    return float(result[split][network][result["loss"]])


QUANTITIES: dict[str, Callable[[Result], float]] = {
    "filters": lambda result: sum(result["filters_kept"]),
    "hidden_layers": lambda result: sum(kept > 0 for kept in result["filters_kept"]),
    "parameters": lambda result: result["parameters"],
    "macs_per_pixel": lambda result: result["macs_per_pixel"],
    "validation_score": lambda result: score(result, "validation"),
    "test_score": lambda result: score(result, "test"),
    "decisions": lambda result: result["decisions"],
    "training_steps": lambda result: result["training_steps"],
}


def over_photographs(sums: np.ndarray) -> dict[str, float | None]:
    """Return the 95 % interval of a loss, from numerators and denominators per photograph, `(N, 2)`.

    One photograph says nothing about others: it sets no upper end.
    """
    low, high = bounds(quotient, sums, (1 + CONFIDENCE) / 2)
    return {"low": max(low, 0.0), "high": high if np.isfinite(high) else None}


def relative(value: float, reference: float) -> float | None:
    """Return how much larger the value is, as a share of the reference; None if infinitely so."""
    change = float(relative_change(value, reference))
    return change if np.isfinite(change) else None


def plain(value: float, reference: float) -> float:
    return value - reference


DIFFERENCES: dict[str, Callable[[float, float], float | None]] = {
    "test_score": relative,
    "macs_per_pixel": plain,
    "training_steps": plain,
}


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and Student's t interval: m +- t(0.975, n - 1) s / sqrt(n).

    s has n - 1 degrees of freedom.
    """
    count = len(values)
    if count < 2:
        return Estimate(float(values[0]) if count else None, None, count)
    error = np.std(values, ddof=1) / np.sqrt(count)
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * error
    return Estimate(float(np.mean(values)), float(half_width), count)


def paired_estimate(values: Sequence[float]) -> PairedEstimate:
    """Return the mean of paired differences, its interval, and the sign-flip permutation test's p.

    If nothing made a difference, each could as well have had the other sign: p is the share of all
    sign patterns with a mean at least as far from 0 (Fisher 1935; Good 2005, chapter 3), at best
    2 / 2**n for n values. None with fewer than five.
    """
    p = None
    if len(values) >= FEWEST_SEEDS:
        test = stats.permutation_test(
            (np.asarray(values, dtype=float),),
            np.mean,
            permutation_type="samples",
            n_resamples=MOST_SIGNS,
            rng=np.random.default_rng(0),
        )
        p = float(test.pvalue)
    return PairedEstimate(*estimate(values), p)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return each quantity's estimate over the seeds of one task and strategy."""
    return {
        name: estimate([quantity(result) for result in results])._asdict()
        for name, quantity in QUANTITIES.items()
    }


def paired(results: Sequence[Result], references: Sequence[Result]) -> dict[str, Any]:
    """Return each difference of results to references of the same seeds, in the same order."""
    found: dict[str, Any] = {}
    for name, compare in DIFFERENCES.items():
        quantity = QUANTITIES[name]
        pairs = zip(results, references, strict=True)
        values = [compare(quantity(result), quantity(reference)) for result, reference in pairs]
        found[name] = paired_estimate([value for value in values if value is not None])._asdict()
    return found
