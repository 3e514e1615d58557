"""Acceptance of a trial: a plain threshold, or a test for non-inferiority on paired photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from selfscale.decisions import DecisionRecord
from selfscale.nn.ratios import quotient, relative_change
from selfscale.search_config import Minimization

RESAMPLES = 4000


class Verdict(NamedTuple):
    """Whether a trial is accepted, its relative loss, and the bound that was held against the tolerance."""

    accepted: bool
    relative_loss: float
    bound: float


def threshold(trial: np.ndarray, reference: np.ndarray, tolerance: float, confidence: float) -> Verdict:
    """Accept a relative loss within the tolerance, as the thesis does (2.3.2)."""
    loss = relative_loss(trial, reference)
    return Verdict(bool(loss <= tolerance), loss, loss)


def non_inferiority(trial: np.ndarray, reference: np.ndarray, tolerance: float, confidence: float) -> Verdict:
    """Accept if the upper one-sided confidence bound of the relative loss is within the tolerance."""
    bound = change_bounds(trial, reference, confidence)[1]
    return Verdict(bool(bound <= tolerance), relative_loss(trial, reference), bound)


# (trial, reference, tolerance, confidence); the first two are sums per photograph, float64 (N, 2)
Rule = Callable[[np.ndarray, np.ndarray, float, float], Verdict]
RULES: dict[str, Rule] = {"threshold": threshold, "non_inferiority": non_inferiority}


def bounds(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Return the lower and the upper one-sided confidence bound of a statistic of summed photographs.

    The percentile bootstrap over photographs is too narrow for few of them. So its quantiles are
    expanded as Hesterberg (2015, doi:10.1080/00031305.2015.1089789, section 4) does it, for Student's t
    and the factor sqrt(n / (n - 1)); and where the t interval with the jackknife's standard error (Efron
    and Tibshirani 1993, chapter 11) is wider, that one counts. One photograph alone proves nothing but
    that there is no difference. The resamples are the same each time: equal sums give equal bounds.

    Args:
        statistic: Of totals over photographs, `(..., k)`, to `(...)`.
        sums: Sums per photograph, float64 of shape `(N, k)`.
        confidence: Of each of the two bounds.
    """
    count, value = len(sums), float(statistic(sums.sum(axis=0)))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    resampled = statistic(weights @ sums)
    one_less = statistic(sums.sum(axis=0) - sums)
    if value == 0 and not (resampled.any() or one_less.any()):
        return 0.0, 0.0
    if count < 2 or not np.isfinite(one_less).all():
        return -np.inf, np.inf
    t = stats.t.ppf(confidence, count - 1)
    margin = t * np.sqrt((count - 1) * np.var(one_less))
    level = stats.norm.cdf(t * np.sqrt(count / (count - 1)))
    beyond = int((RESAMPLES - 1) * (1 - level))  # so many of the resamples, at either end
    ranked = np.sort(resampled)
    return min(float(ranked[beyond]), value - margin), max(float(ranked[-1 - beyond]), value + margin)


def change_bounds(trial: np.ndarray, reference: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return `bounds` of the relative loss.

    Both networks are evaluated on the same resampled photographs, so that what makes one hard for both
    cancels.

    Args:
        trial: Sums per photograph, float64 of shape `(N, 2)`.
        reference: Those of the network that it is compared with.
        confidence: Of each of the two bounds.
    """
    return bounds(
        lambda totals: relative_change(quotient(totals[..., :2]), quotient(totals[..., 2:])),
        np.hstack([trial, reference]),
        confidence,
    )


def relative_loss(trial: np.ndarray, reference: np.ndarray) -> float:
    """Return the relative change of a loss, given as sums per photograph, float64 `(N, 2)`."""
    return float(relative_change(quotient(trial.sum(axis=0)), quotient(reference.sum(axis=0))))


@dataclass(frozen=True)
class Judge:
    """Decide whether a trial is accepted, by its sums per photograph and how its session ended.

    `confidence` is that of the trial. If it may be looked at several times, or is the best of several, as
    many `looks` share the risk of a false acceptance equally (Bonferroni): alpha spending with a linear
    spending function (Lan and DeMets 1983). So it stays below 1 - confidence whichever look accepts.
    """

    reference: np.ndarray
    tolerance: float
    rule: Rule
    confidence: float
    looks: int = 1
    target: float | None = None  # a loss that takes the place of the reference's, without a tolerance

    @property
    def limit(self) -> float:
        """Loss that the tolerance allows."""
        if self.target is not None:
            return self.target
        return float(quotient(self.reference.sum(axis=0)) * (1.0 + self.tolerance))

    def __call__(self, sums: np.ndarray, ended: str) -> Verdict:
        reference, tolerance = self.reference, self.tolerance
        if self.target is not None:  # sums of a network that has just this loss on every photograph
            reference, tolerance = sums[:, 1:] * (self.target, 1.0), 0.0
        if ended in ("completed", "sufficient"):
            confidence = 1 - (1 - self.confidence) / self.looks
            return self.rule(sums, reference, tolerance, confidence)
        return threshold(sums, reference, tolerance, self.confidence)._replace(accepted=False)

    def reason(self, ended: str, verdict: Verdict) -> str:
        """Return in words why a trial was accepted or not."""
        if ended == "non-finite":
            return "the loss is not a finite number"
        if ended == "dead":
            return "the network is dead: its output is the same everywhere"
        if ended == "hopeless":
            return f"stopped early: {verdict.relative_loss:+.1%}, too far for the rest of the session"
        score = f"score {verdict.relative_loss:+.1%}"
        if verdict.bound != verdict.relative_loss:
            score += f" (at most {verdict.bound:+.1%} with confidence)"
        if self.target is not None:
            return f"{score}, {'reaches' if verdict.accepted else 'misses'} the target {self.target:.4g}"
        within = "within" if verdict.accepted else "not within"
        return f"{score}, {within} the tolerance {self.tolerance:.1%}"


def reaches_target(settings: Minimization, sums: np.ndarray) -> bool | None:
    """Return whether a network reaches the target with confidence; None if there is none.

    `sums` are its loss's sums per photograph, float64 `(N, 2)`.
    """
    if settings.target is None:
        return None
    chosen = settings.acceptance
    return Judge(sums, 0.0, RULES[chosen.rule], chosen.confidence, target=settings.target)(
        sums, "completed"
    ).accepted


def reference_of(
    name: Literal["initial", "previous", "best"], initial: np.ndarray, records: Sequence[DecisionRecord]
) -> np.ndarray:
    """Return the sums per photograph, `(N, 2)`, of the network that a trial is compared with.

    `initial` is the network before all removals: after growth, the one that was grown.
    """
    accepted = [record for record in records if record.accepted and record.photograph_sums]
    growth = sum(record.grows for record in accepted)
    candidates = [initial, *(np.array(record.photograph_sums) for record in accepted)][growth:]
    if name == "best":
        return min(candidates, key=lambda sums: float(quotient(sums.sum(axis=0))))
    return candidates[-1 if name == "previous" else 0]
