"""How a compiled step gets its crops: cut by NumPy from mapped files, or by the device that trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from selfscale.nn.blocking import Chain
from selfscale.nn.input_pipeline import Split, crop_size, draw, places

log = logging.getLogger(__name__)

Batch = tuple[tf.Tensor, tf.Tensor]


class Feed(Protocol):
    """Source of the crops of compiled training steps; all kinds draw the same from the same generator.

    `chunk(shape, rng)` returns the arguments of a call, of the types of `signature`, for `shape` =
    (steps, batch size). Inside the compiled function, `batches(chunk, chain)` returns a function from a
    step's number to its images and targets, as `chain` reads them.
    """

    signature: list[tf.TensorSpec]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]: ...

    def batches(self, chunk: tuple[tf.Tensor, ...], chain: Chain) -> Callable[[tf.Tensor], Batch]: ...


class Streamed:
    """Crops from arrays that may be larger than the memory; reads only what is drawn."""

    def __init__(self, split: Split, crop: int | None) -> None:
        self.split, self.crop = split, crop
        self.signature = [
            tf.TensorSpec((None, None, None, None, 1), array.dtype) for array in (split.images, split.targets)
        ]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]:
        crops = draw(self.split, shape, self.crop, rng)
        return crops.images, crops.targets

    def batches(self, chunk: tuple[tf.Tensor, ...], chain: Chain) -> Callable[[tf.Tensor], Batch]:
        images, targets = map(chain.to_blocks, chunk)  # at once, not in each step
        return lambda step: (images[step], targets[step])


class Resident:
    """Crops from arrays in the device's memory: a step sends 12 bytes an image, and copies nothing.

    Raises:
        tf.errors.ResourceExhaustedError: The arrays do not fit.
    """

    def __init__(self, split: Split, crop: int | None, device: str) -> None:
        self.crop = crop
        with tf.device(device):
            self.arrays = (tf.constant(split.images), tf.constant(split.targets))
        self.signature = [tf.TensorSpec((None, None, 3), tf.int32)]

    def chunk(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, ...]:
        where, _ = places(self.arrays[0].shape, shape, self.crop, rng)
        return (where.astype(np.int32),)

    def batches(self, chunk: tuple[tf.Tensor, ...], chain: Chain) -> Callable[[tf.Tensor], Batch]:
        return lambda step: tuple(map(chain.to_blocks, self._cut(chunk[0][step])))

    def _cut(self, where: tf.Tensor) -> Batch:
        images, targets = self.arrays
        h, w = crop_size(images.shape, self.crop)
        which, tops, lefts = tf.unstack(where, axis=-1)
        rows = tops[:, None, None] + tf.range(h)[:, None]
        columns = lefts[:, None, None] + tf.range(w)
        zeros = tf.zeros((h, w), tf.int32)
        indices = tf.stack([which[:, None, None] + zeros, rows + zeros, columns + zeros], axis=-1)
        return tf.gather_nd(images, indices), tf.gather_nd(targets, indices)


def feed_for(split: Split, crop: int | None, gpu: str | None) -> Feed:
    """Return a feed from the GPU of that name, if as much again fits beside the arrays; else streamed."""
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
