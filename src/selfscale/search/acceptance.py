"""Acceptance of a trial: a plain threshold, or a test for non-inferiority on paired images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from selfscale.records import DecisionRecord

RESAMPLES = 2000


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
    bound = float(np.quantile(bootstrap(trial, reference), confidence, method="higher"))
    return Verdict(bool(bound <= tolerance), relative_loss(trial, reference), bound)


# (trial, reference, tolerance, confidence); the first two are sums per image, float64 (N, 2)
Rule = Callable[[np.ndarray, np.ndarray, float, float], Verdict]
RULES: dict[str, Rule] = {"threshold": threshold, "non_inferiority": non_inferiority}


def bootstrap(trial: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return relative losses on resampled images (Efron and Tibshirani 1993, chapter 13).

    Both networks are evaluated on the same resampled images, so that what makes an image hard for both
    cancels. The resamples are the same each time: equal losses give equal verdicts.

    Args:
        trial: Sums per image, float64 of shape `(N, 2)`.
        reference: Those of the network that it is compared with.

    Returns:
        Array of shape `(RESAMPLES,)`.
    """
    count = len(reference)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return ratio(weights @ trial) / ratio(weights @ reference) - 1.0


def relative_loss(trial: np.ndarray, reference: np.ndarray) -> float:
    """Return trial / reference - 1 of two losses, given as sums per image, float64 `(N, 2)`."""
    return float(ratio(trial.sum(axis=0)) / ratio(reference.sum(axis=0)) - 1.0)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Judge:
    """Decide whether a trial is accepted, by its sums per validation image and how its session ended."""

    reference: np.ndarray
    tolerance: float
    rule: Rule
    confidence: float

    @property
    def limit(self) -> float:
        """Loss that the tolerance allows."""
        return float(ratio(self.reference.sum(axis=0)) * (1.0 + self.tolerance))

    def __call__(self, sums: np.ndarray, ended: str) -> Verdict:
        if ended in ("completed", "sufficient"):
            return self.rule(sums, self.reference, self.tolerance, self.confidence)
        return threshold(sums, self.reference, self.tolerance, self.confidence)._replace(accepted=False)


def reference_of(
    name: Literal["initial", "previous", "best"], initial: np.ndarray, records: Sequence[DecisionRecord]
) -> np.ndarray:
    """Return the sums per validation image, `(N, 2)`, of the network that a trial is compared with.

    `initial` is the network before all removals: after growth, the one that was grown.
    """
    accepted = [record for record in records if record.accepted and record.image_sums]
    growth = sum(record.grows for record in accepted)
    candidates = [initial, *(np.array(record.image_sums) for record in accepted)][growth:]
    if name == "best":
        return min(candidates, key=lambda sums: float(ratio(sums.sum(axis=0))))
    return candidates[-1 if name == "previous" else 0]


def reason(ended: str, verdict: Verdict, tolerance: float) -> str:
    """Return in words why a trial was accepted or not."""
    if ended == "non-finite":
        return "the loss is not a finite number"
    if ended == "dead":
        return "the network is dead: its output is the same everywhere"
    if ended == "hopeless":
        return f"stopped early: {verdict.relative_loss:+.1%}, too far for the rest of the session"
    within = "within" if verdict.accepted else "not within"
    score = f"score {verdict.relative_loss:+.1%}"
    if verdict.bound != verdict.relative_loss:
        score += f" (at most {verdict.bound:+.1%} with confidence)"
    return f"{score}, {within} the tolerance {tolerance:.1%}"
