"""Networks on blocks of pixels, for other programs, and what they gain."""

from __future__ import annotations

import re
import time
from statistics import median
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import UserError
from selfscale.inference.export import Function
from selfscale.nn.block_shape import LONGEST, PLAIN, Shape, best_shape, stages
from selfscale.nn.blocked_model import blocked_model

SIDE, CALLS = 1024, 6


def on_blocks(model: keras.Model, shape: str | None = None) -> tuple[keras.Model, str]:
    """Return a model of built-in layers that runs on blocks of pixels, and their shape.

    Args:
        shape: Rows and columns of a block, as 2x2. Defaults to that of the fewest multiplications.

    Raises:
        UserError: The network cannot run on blocks, gains nothing by it, or `shape` is none.
    """
    sides = re.fullmatch("([0-9]+)x([0-9]+)", shape or "0x0")
    chosen = Shape(*map(int, sides.groups())) if sides else PLAIN
    if shape and (chosen == PLAIN or not all(1 <= side <= LONGEST for side in chosen)):
        raise UserError(
            f"--block: {shape} is no block of pixels; give rows x columns from 1 to {LONGEST}, such as 2x2"
        )
    try:
        chosen = chosen if shape else best_shape(stages(model), (None, None))
        fast = blocked_model(model, chosen)
    except UserError as error:
        raise UserError(f"--fast: this network cannot run on blocks of pixels: {error}") from error
    if chosen == PLAIN:
        raise UserError("--fast: blocks of pixels make this network no faster; leave it out")
    return fast, str(chosen)


class Speed(NamedTuple):
    """Milliseconds per megapixel on this machine, as exported and as the plain Keras model."""

    block: str
    ms_per_megapixel: float
    plain_ms_per_megapixel: float

    def __str__(self) -> str:
        return (
            f"on blocks of {self.block} pixels: {self.ms_per_megapixel:.1f} ms per megapixel; the plain "
            f"Keras model: {self.plain_ms_per_megapixel:.1f} (measured in turns)"
        )


def speed(model: keras.Model, exported: Function, block: str) -> Speed:
    """Measure an export on blocks and the plain model: medians of five calls, in turns."""
    compiled = tf.function(lambda images: model(images, training=False))
    image = np.random.default_rng(0).random((1, SIDE, SIDE, 1), dtype=np.float32)
    times: list[list[float]] = [[], []]
    functions: tuple[Function, Function] = exported, lambda images: compiled(images).numpy()
    for _ in range(CALLS):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            function(image)
            found.append(time.perf_counter() - started)
    # The first call of each compiles.
    return Speed(block, *(median(found[1:]) * 1e3 * 1e6 / image.size for found in times))
