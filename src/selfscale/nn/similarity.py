"""Similarity of filters by their weights; without TensorFlow, so that strategies load at once."""

from __future__ import annotations

import numpy as np


def cosine_similarity(rows: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between each two rows.

    Args:
        rows: Floats of shape `(n, k)`.

    Returns:
        Array of shape `(n, n)`, in [-1, 1]; 0 for a row of zeros.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return np.clip(units @ units.T, -1.0, 1.0)
