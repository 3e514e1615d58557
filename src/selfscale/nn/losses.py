"""Losses as ratios of two sums over pixels, per image; lower is better.

The loss over any set of images is the sum of their numerators over the sum of their denominators: one
definition serves a training batch, an evaluation and a bootstrap over photographs. A loss of 0/0 (no
positive pixel, none found) is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from selfscale.nn.ratios import quotient

# (target, output), both float32 (N, H, W, 1) -> numerators (N,), denominators (N,)
Loss = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
PIXELS = (1, 2, 3)


def mae(target: tf.Tensor, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the mean absolute error; 0 is best."""
    return tf.reduce_sum(tf.abs(target - output), PIXELS), tf.reduce_sum(tf.ones_like(target), PIXELS)


def mse(target: tf.Tensor, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the mean squared error; 0 is best."""
    return tf.reduce_sum(tf.square(target - output), PIXELS), tf.reduce_sum(tf.ones_like(target), PIXELS)


def soft_f1(target: tf.Tensor, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute one minus the soft F1 score against a target of zeros and ones; 0 is best, 1 is worst.

    True positives, false positives and false negatives are computed from the continuous output
    (thesis 2.2.1): 1 - F1 = (FP + FN) / (2 TP + FP + FN). Output beyond 1 counts as 1.
    """
    output = tf.minimum(output, 1.0)
    true_positives = tf.reduce_sum(target * output, PIXELS)
    wrong = tf.reduce_sum(output, PIXELS) + tf.reduce_sum(target, PIXELS) - 2.0 * true_positives
    return wrong, wrong + 2.0 * true_positives


LOSSES: dict[str, Loss] = {"mae": mae, "mse": mse, "soft_f1": soft_f1}

# The output that is best where it has to be the same everywhere; of soft F1 it is 1 for any targets:
# 1 - F1 = 1 - 2pT / (pN + T) falls with the output p, for N pixels of which T are ones.
CONSTANTS: dict[str, Callable[[np.ndarray], float]] = {
    "mae": lambda targets: float(np.median(targets)),
    "mse": lambda targets: float(np.mean(targets, dtype=np.float64)),
    "soft_f1": lambda targets: 1.0,
}


def without_skill(loss: str, targets: np.ndarray) -> float:
    """Return the loss of the best constant output on targets of shape `(N, H, W, 1)`."""
    constant = CONSTANTS[loss](targets)
    sums = []
    for target in targets:  # one by one: as float32, all of them could fill the memory
        wanted = tf.constant(target[None], tf.float32)
        sums.append(np.stack(LOSSES[loss](wanted, tf.fill(wanted.shape, constant))))
    return float(quotient(np.sum(sums, axis=0, dtype=np.float64).sum(axis=-1)))


def ratio(sums: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Return the loss of a batch."""
    return tf.math.divide_no_nan(tf.reduce_sum(sums[0]), tf.reduce_sum(sums[1]))
