"""Ratios of sums, and of losses, as arrays: here it is said what 0/0 is; without TensorFlow."""

from __future__ import annotations

import numpy as np


def quotient(sums: np.ndarray) -> np.ndarray:
    """Return losses from numerators and denominators, float64 `(..., 2)`; 0/0 is 0, and 1/0 infinite."""
    numerators, denominators = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerators == 0, 0.0, numerators / denominators)


def relative_change(loss: np.ndarray | float, reference: np.ndarray | float) -> np.ndarray:
    """Return loss / reference - 1; two losses of 0 do not differ, and any other is infinitely worse."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(loss, reference), 0.0, np.divide(loss, reference) - 1.0)
