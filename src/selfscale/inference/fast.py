"""Networks on blocks of pixels, for other programs, and what they gain."""

from __future__ import annotations

import re
from typing import NamedTuple

import keras

from selfscale.errors import UserError
from selfscale.inference.latency import Function, milliseconds, plain
from selfscale.nn.block_shape import LONGEST, PLAIN, Shape, best_shape
from selfscale.nn.blocked_model import blocked_model
from selfscale.nn.fcn import blocks


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
        chosen = chosen if shape else best_shape(blocks(model), (None, None))
        fast = blocked_model(model, chosen)
    except UserError as error:
        raise UserError(f"--fast: this network cannot run on blocks of pixels: {error}") from error
    if chosen == PLAIN:
        raise UserError("--fast: blocks of pixels make this network no faster")
    return fast, str(chosen)


class Gain(NamedTuple):
    """Milliseconds per megapixel on this machine, as exported and as the plain Keras model."""

    block: str
    ms_per_megapixel: float
    plain_ms_per_megapixel: float

    def __str__(self) -> str:
        return (
            f"on blocks of {self.block} pixels: {self.ms_per_megapixel:.1f} ms per megapixel; the plain "
            f"Keras model: {self.plain_ms_per_megapixel:.1f} (measured in turns)"
        )


def gain(model: keras.Model, exported: Function, block: str) -> Gain:
    """Measure an export on blocks and the plain model, in turns."""
    return Gain(block, *milliseconds([exported, plain(model)]))
