"""Metrics of a network on whole images, kept per photograph so that they can be paired and resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from selfscale.nn.blocking import Chain
from selfscale.nn.input_pipeline import Split
from selfscale.nn.losses import LOSSES, PIXELS
from selfscale.nn.ratios import quotient

Sums = tuple[tf.Tensor, tf.Tensor]
WINDOW = 8
IMAGES_PER_CALL = 8


@dataclass(frozen=True)
class Evaluation:
    """Numerators and denominators of each metric per photograph, and the range of the output."""

    sums: dict[str, np.ndarray]  # by metric, float64 of shape (photographs, 2)
    lowest: float
    highest: float

    def score(self, metric: str) -> float:
        """Return a metric over all images: sum of numerators over sum of denominators (0/0 is 0)."""
        return float(quotient(self.sums[metric].sum(axis=0)))

    def scores(self) -> dict[str, float]:
        return {metric: self.score(metric) for metric in self.sums}

    @property
    def dead(self) -> bool:
        """Whether the output is the same everywhere, as of a network whose ReLUs have died."""
        return self.lowest == self.highest

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.lowest) and np.isfinite(self.highest))


def uiqi(target: tf.Tensor, output: tf.Tensor) -> Sums:
    """Compute the Universal Image Quality Index (Wang and Bovik 2002) on sliding windows of 8x8.

    The index is in [-1, 1], 1 is best. Images are rounded to 0..255 (thesis 2.2), so the sums over a
    window are exact in float32 (below 2**24), and flat windows are recognised without a tolerance: where
    both windows are flat, only luminance counts, and where both are black, the index is 1 (as in the
    authors' reference code).

    Returns:
        For each image the sum of the index over all windows, and the number of windows.
    """
    x = tf.round(tf.clip_by_value(target, 0.0, 1.0) * 255.0)
    y = tf.round(tf.clip_by_value(output, 0.0, 1.0) * 255.0)
    maps = tf.concat([x, y, x * x + y * y, x * y], axis=-1)
    for side in ((WINDOW, 1), (1, WINDOW)):
        maps = tf.nn.depthwise_conv2d(maps, tf.ones((*side, 4, 1)), (1, 1, 1, 1), "VALID")
    sum_x, sum_y, sum_squares, sum_xy = tf.unstack(tf.cast(maps, tf.float64), axis=-1)
    product, squares = sum_x * sum_y, sum_x**2 + sum_y**2
    covariance = WINDOW**2 * sum_xy - product
    variances = WINDOW**2 * sum_squares - squares
    index = tf.where(
        variances * squares > 0,
        tf.math.divide_no_nan(4.0 * covariance * product, variances * squares),
        tf.where(squares > 0, tf.math.divide_no_nan(2.0 * product, squares), 1.0),
    )
    return tf.reduce_sum(index, (1, 2)), tf.reduce_sum(tf.ones_like(index), (1, 2))


def detection(threshold: float) -> dict[str, Callable[[tf.Tensor, tf.Tensor], Sums]]:
    """Return F1, precision and recall of the pixels above `threshold` against a discrete target."""

    def counts(target: tf.Tensor, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = tf.cast(output > threshold, tf.float32)
        hits = tf.reduce_sum(target * found, PIXELS)
        return hits, tf.reduce_sum(found, PIXELS), tf.reduce_sum(target, PIXELS)

    def f1(target: tf.Tensor, output: tf.Tensor) -> Sums:
        hits, found, wanted = counts(target, output)
        return 2.0 * hits, found + wanted

    def precision(target: tf.Tensor, output: tf.Tensor) -> Sums:
        hits, found, _ = counts(target, output)
        return hits, found

    def recall(target: tf.Tensor, output: tf.Tensor) -> Sums:
        hits, _, wanted = counts(target, output)
        return hits, wanted

    return {"f1": f1, "precision": precision, "recall": recall}


class Evaluator:
    """Evaluate one Keras model, by a compiled function that never changes it.

    `metrics` are mae, mse and uiqi, and for discrete targets also soft_f1, f1, precision and recall.

    Args:
        model: Model to evaluate.
        discrete: Whether targets are 0 or 1. If so, output beyond 1 counts as 1.
        threshold: Output above it is positive, for f1, precision and recall.
    """

    def __init__(self, model: keras.Model, *, discrete: bool, threshold: float = 0.5) -> None:
        self.metrics: dict[str, Callable[[tf.Tensor, tf.Tensor], Sums]] = {
            "mae": LOSSES["mae"],
            "mse": LOSSES["mse"],
            "uiqi": uiqi,
        }
        if discrete:
            self.metrics |= {"soft_f1": LOSSES["soft_f1"], **detection(threshold)}
        self._model, self._discrete, self._threshold = model, discrete, threshold
        self._compiled: dict[tuple[str, ...], tf.types.experimental.PolymorphicFunction] = {}

    def of(self, model: keras.Model) -> Evaluator:
        """Return the same evaluation of another model."""
        return Evaluator(model, discrete=self._discrete, threshold=self._threshold)

    def __call__(self, split: Split, metrics: tuple[str, ...] | None = None) -> Evaluation:
        """Evaluate on every image of `split`, by some of the metrics or all."""
        names = metrics or tuple(self.metrics)
        if names not in self._compiled:
            self._compiled[names] = self._compile(names)
        sums, lowest, highest = [], [], []
        for start in range(0, len(split.images), IMAGES_PER_CALL):
            part = slice(start, start + IMAGES_PER_CALL)
            batch, low, high = self._compiled[names](split.images[part], split.targets[part])
            sums.append(batch.numpy())
            lowest.append(float(low))
            highest.append(float(high))
        photographs, of = np.unique(split.photograph, return_inverse=True)
        table = np.zeros((len(photographs), len(names), 2))
        np.add.at(table, of, np.concatenate(sums))
        return Evaluation(
            {name: table[:, column] for column, name in enumerate(names)},
            float(np.min(lowest)),
            float(np.max(highest)),
        )

    def _compile(self, names: tuple[str, ...]) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def evaluate(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            target = tf.cast(targets, tf.float32)
            output = Chain(self._model, images.shape[1:3]).on_images(to_float(images))
            lowest, highest = tf.reduce_min(output), tf.reduce_max(output)
            output = tf.minimum(output, 1.0) if self._discrete else output
            pairs = [self.metrics[name](target, output) for name in names]
            table = tf.stack(
                [tf.stack([tf.cast(value, tf.float64) for value in pair], axis=-1) for pair in pairs], axis=1
            )
            return table, lowest, highest

        return evaluate


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Convert uint8 images to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0
