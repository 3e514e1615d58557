"""When a trial is kept: a plain threshold, or a test for non-inferiority on paired images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from selfscale.records import DecisionRecord

RESAMPLES = 2000


class Verdict(NamedTuple):
    """`relative_loss`: of score, against the reference; `bound`: what was held against the tolerance."""

    accepted: bool
    relative_loss: float
    bound: float


def threshold(trial: np.ndarray, reference: np.ndarray, tolerance: float, confidence: float) -> Verdict:
    """The thesis's plain comparison (2.3.2): the loss itself must be within the tolerance."""
    loss = relative_loss(trial, reference)
    return Verdict(bool(loss <= tolerance), loss, loss)


def non_inferiority(trial: np.ndarray, reference: np.ndarray, tolerance: float, confidence: float) -> Verdict:
    """The upper one-sided confidence bound of the relative loss must be within the tolerance.

    A percentile bootstrap over the validation images (Efron and Tibshirani 1993, chapter 13): both
    networks are scored on the same resampled images, so that what makes an image hard for both of
    them cancels. The resamples are the same each time: equal scores give equal verdicts.
    """
    count = len(reference)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    losses = ratio(weights @ trial) / ratio(weights @ reference) - 1.0
    bound = float(np.quantile(losses, confidence, method="higher"))
    return Verdict(bool(bound <= tolerance), relative_loss(trial, reference), bound)


# (trial, reference, tolerance, confidence); the first two are sums per image, float64 (N, 2)
Rule = Callable[[np.ndarray, np.ndarray, float, float], Verdict]
RULES: dict[str, Rule] = {"threshold": threshold, "non_inferiority": non_inferiority}


def relative_loss(trial: np.ndarray, reference: np.ndarray) -> float:
    """How much larger the trial's score is, as a share of the reference's; both float64 (N, 2)."""
    return float(ratio(trial.sum(axis=0)) / ratio(reference.sum(axis=0)) - 1.0)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Judge:
    """Decides whether a trial is kept, by its sums per validation image and how its session ended."""

    reference: np.ndarray
    tolerance: float
    rule: Rule
    confidence: float

    @property
    def limit(self) -> float:
        """The score that the tolerance allows."""
        return float(ratio(self.reference.sum(axis=0)) * (1.0 + self.tolerance))

    def __call__(self, sums: np.ndarray, ended: str) -> Verdict:
        if ended in ("completed", "sufficient"):
            return self.rule(sums, self.reference, self.tolerance, self.confidence)
        return threshold(sums, self.reference, self.tolerance, self.confidence)._replace(accepted=False)


def reference_of(
    name: Literal["initial", "previous", "best"], initial: np.ndarray, records: Sequence[DecisionRecord]
) -> np.ndarray:
    """The sums per validation image, (N, 2), of the network that a trial is compared with.

    The `initial` one is that before all removals: after growth, the one that was grown.
    """
    accepted = [record for record in records if record.accepted and record.image_sums]
    growth = sum(record.grows for record in accepted)
    kept = [initial, *(np.array(record.image_sums) for record in accepted)][growth:]
    if name == "best":
        return min(kept, key=lambda sums: float(ratio(sums.sum(axis=0))))
    return kept[-1 if name == "previous" else 0]


def reason(ended: str, verdict: Verdict, tolerance: float) -> str:
    """Why a trial was kept or not, in words; losses of score are relative to the reference."""
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
