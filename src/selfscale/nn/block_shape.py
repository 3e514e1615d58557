"""How large blocks of pixels are for a chain, and how a kernel's weights lie in one over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import keras
import numpy as np

from selfscale.nn.fcn import RESIZING, Block

LANES = 16  # float32 values of a vector register
LONGEST = 4  # side of a block in pixels
ACROSS_CHANNELS = ("softmax", "log_softmax", "glu", "sparsemax")


class Shape(NamedTuple):
    """Rows and columns of a block of pixels."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


PLAIN = Shape(1, 1)


def problem(chain: Sequence[Block]) -> str | None:
    """Return why a chain cannot run on blocks of pixels, or None if it can."""
    if not chain:
        return "there is no convolution"
    for block in chain:
        convolution = block.convolution
        if convolution.strides != (1, 1) or convolution.padding != "same" or convolution.groups != 1:
            return f"'{convolution.name}' has strides, groups, or no padding"
        for layer in block.layers:
            if layer.compute_dtype != "float32":
                return f"'{layer.name}' computes in {layer.compute_dtype}"
            if isinstance(layer, RESIZING):
                return f"'{layer.name}' changes the resolution"
            if isinstance(layer, keras.layers.Dropout) and layer.rate:
                return f"'{layer.name}' draws numbers for each pixel"
            if getattr(getattr(layer, "activation", None), "__name__", "") in ACROSS_CHANNELS:
                return f"'{layer.name}' has an activation that mixes channels"
    return None


def span(length: int, dilation: int, side: int) -> tuple[int, int]:
    """Return the side of a kernel over blocks, and how many blocks before the middle one it reads.

    Args:
        length, dilation: Of the kernel over pixels, along one axis.
        side: Of the blocks, along that axis.
    """
    reach = (length - 1) * dilation
    first = -(-(reach // 2) // side)
    last = (side - 1 + reach - reach // 2) // side
    blocked = max(2 * first + 1, 2 * last)  # "same" padding has the zero that is left over behind
    return blocked, (blocked - 1) // 2


def multiplications(chain: Sequence[Block], shape: Shape) -> float:
    """Count the multiplications per pixel, those of idle lanes included."""
    total, pixels = 0.0, shape.rows * shape.columns
    for convolution in (block.convolution for block in chain):
        axes = zip(convolution.kernel_size, convolution.dilation_rate, shape, strict=True)
        positions = np.prod([span(*axis)[0] for axis in axes])
        lanes = -(-pixels * convolution.filters // LANES) * LANES
        total += positions * convolution.kernel.shape[2] * lanes
    return float(total)


def best_shape(chain: Sequence[Block], size: Sequence[int | None]) -> Shape:
    """Return the shape with the fewest multiplications among those that divide an image's size.

    Args:
        size: Height and width in pixels; None: of any length, as images are padded.
    """
    sides = [
        [side for side in range(1, LONGEST + 1) if length is None or length % side == 0] for length in size
    ]
    shapes = [Shape(*pair) for pair in product(*sides)]
    return min(shapes, key=lambda shape: (multiplications(chain, shape), shape.rows * shape.columns))


def arrangement(length: int, dilation: int, side: int) -> np.ndarray:
    """Return which weight of a kernel joins which pixels, along one axis.

    Returns:
        Zeros and ones, float32 of shape (position in the blocked kernel, pixel of the block that is
        read, pixel of the block that is written, position in the kernel).
    """
    blocked, before = span(length, dilation, side)
    block, read, written, position = np.ogrid[:blocked, :side, :side, :length]
    top = (length - 1) * dilation // 2
    return (side * (block - before) + read == written + dilation * position - top).astype(np.float32)
