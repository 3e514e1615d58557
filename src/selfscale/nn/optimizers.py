"""Optimizers and the schedule of their learning rate."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class Adam(keras.optimizers.Adam):
    """Adam on one replica, whose traces can be freed.

    Keras sums gradients over replicas by an operation with a gradient of its own, for which TensorFlow
    keeps the graph of each traced step until the process ends: some megabytes for each network.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return grads_and_vars


def learning_rates(steps: int, peak: float, warmup: float) -> np.ndarray:
    """Return the learning rate of each step: linear warm-up, then cosine decay to zero.

    Args:
        steps: Length of the session.
        peak: Highest learning rate.
        warmup: Share of the steps that warm up, in [0, 1].

    Returns:
        float32 array of shape `(steps,)`.
    """
    step = np.arange(steps) + 1.0
    rising = max(1.0, warmup * steps)
    falling = np.clip((step - rising) / max(1.0, steps - rising), 0.0, 1.0)
    rates = peak * np.where(step < rising, step / rising, 0.5 * (1 + np.cos(np.pi * falling)))
    return rates.astype("float32")
