"""When a trial is kept: a plain threshold, or a test for non-inferiority on paired images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000


class Verdict(NamedTuple):
    """`loss`: relative, of score against the reference; `bound`: what was held against the tolerance."""

    accepted: bool
    loss: float
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


RULES = {"threshold": threshold, "non_inferiority": non_inferiority}


def relative_loss(trial: np.ndarray, reference: np.ndarray) -> float:
    """How much larger the trial's score is, as a share of the reference's; both float64 (N, 2)."""
    return float(ratio(trial.sum(axis=0)) / ratio(reference.sum(axis=0)) - 1.0)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
