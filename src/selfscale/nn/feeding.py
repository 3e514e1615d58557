"""Where a session's crops are cut: by NumPy from mapped files, or by the device that trains."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from selfscale.data.prepare import Split
from selfscale.nn.input_pipeline import crop_size, draw, places

log = logging.getLogger(__name__)

Batch = tuple[tf.Tensor, tf.Tensor]


class Feed(Protocol):
    """Both kinds draw the same crops from the same generator.

    `chunk(shape, rng)` is what the compiled steps are called with, of the types of `signature`, for
    `shape` = (steps, batch); inside, `batch(chunk, step)` is a step's images and targets (batch, h, w, 1).
    """

    signature: list[tf.TensorSpec]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]: ...

    def batch(self, chunk: tuple[tf.Tensor, ...], step: tf.Tensor) -> Batch: ...


class Streamed:
    """From arrays that may be larger than the memory; only what is drawn is ever read."""

    def __init__(self, split: Split, crop: int | None) -> None:
        self.split, self.crop = split, crop
        self.signature = [
            tf.TensorSpec((None, None, None, None, 1), array.dtype) for array in (split.images, split.targets)
        ]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]:
        crops = draw(self.split, shape, self.crop, rng)
        return crops.images, crops.targets

    def batch(self, chunk: tuple[tf.Tensor, ...], step: tf.Tensor) -> Batch:
        images, targets = chunk
        return images[step], targets[step]


class Resident:
    """From arrays in the device's memory: for a step, 12 bytes an image are sent, and nothing is copied.

    Raises:
        tf.errors.ResourceExhaustedError: they do not fit.
    """

    def __init__(self, split: Split, crop: int | None, device: str) -> None:
        self.crop = crop
        with tf.device(device):
            self.arrays = (tf.constant(split.images), tf.constant(split.targets))
        self.signature = [tf.TensorSpec((None, None, 3), tf.int32)]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]:
        where, _ = places(self.arrays[0].shape, shape, self.crop, rng)
        return (where.astype(np.int32),)

    def batch(self, chunk: tuple[tf.Tensor, ...], step: tf.Tensor) -> Batch:
        images, targets = self.arrays
        h, w = crop_size(images.shape, self.crop)
        which, tops, lefts = tf.unstack(chunk[0][step], axis=-1)
        rows = tops[:, None, None] + tf.range(h)[:, None]
        columns = lefts[:, None, None] + tf.range(w)
        zeros = tf.zeros((h, w), tf.int32)
        indices = tf.stack([which[:, None, None] + zeros, rows + zeros, columns + zeros], axis=-1)
        return tf.gather_nd(images, indices), tf.gather_nd(targets, indices)


def feed_for(split: Split, crop: int | None, gpu: str | None) -> Feed:
    """Arrays on the GPU of that name if they fit beside as much again for the training; else streamed."""
    if gpu is None:
        return Streamed(split, crop)
    try:
        feed = Resident(split, crop, gpu)
        with tf.device(gpu):  # freed at once: what fits now only just would leave no room to train
            tf.zeros(split.images.nbytes + split.targets.nbytes, tf.uint8)
    except tf.errors.ResourceExhaustedError:
        log.info("the images do not fit in the memory of %s: crops are read from the disk", gpu)
        return Streamed(split, crop)
    return feed
