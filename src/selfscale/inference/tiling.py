"""Apply a network to a large image in overlapping tiles, with the result of the whole image.

A pixel of the output depends on its receptive field only, which is the sum of those of the convolutions.
So a tile that is larger by that much on each side has, away from its own borders, the output of the whole
image. "Same" padding puts zeros around the tile: at the border of the image every layer of the whole
network would see them, too, and nothing is cut off there; everywhere else the zeros spoil no more than the
receptive field, which is cut off.

So every output is the sum of the same products. Only their order is TensorFlow's, and may depend on the
size of the image: of 2.9 million pixels of 60 random networks 311 differed in the last bit of a float32,
none as an 8-bit image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.errors import UserError
from selfscale.nn.fcn import RESIZING, blocks


class ReceptiveField(NamedTuple):
    """Along one axis, the input pixels before and after its own place that an output pixel depends on.

    The output is `lost` pixels shorter than the input (convolutions without padding); its first pixel
    has the place of the input's first one.
    """

    before: int = 0
    after: int = 0
    lost: int = 0

    def through(self, span: int, padded: bool) -> ReceptiveField:
        """The field with one more convolution, whose kernel covers `span` + 1 pixels.

        TensorFlow pads an even kernel by one zero more behind than before.
        """
        if not padded:
            return ReceptiveField(self.before, self.after + span, self.lost + span)
        return ReceptiveField(self.before + span // 2, self.after + span - span // 2, self.lost)


class Window(NamedTuple):
    """Input pixels `start` to `stop` of one axis, which give the output pixels `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int


def receptive_field(model: keras.Model) -> tuple[ReceptiveField, ReceptiveField] | None:
    """Return the receptive field of a chain of plain layers along height and width.

    Returns:
        None if a layer changes the resolution (strides, pooling, upsampling): the output of a tile then
        depends on where it lies. Nor is it known if the model branches.
    """
    rows, columns = ReceptiveField(), ReceptiveField()
    try:
        chain = blocks(model)
    except UserError:
        return None
    for block in chain:
        convolution = block.convolution
        if convolution.strides != (1, 1) or any(isinstance(layer, RESIZING) for layer in block.followers):
            return None
        height, width = (
            (side - 1) * dilation
            for side, dilation in zip(convolution.kernel_size, convolution.dilation_rate, strict=True)
        )
        padded = convolution.padding == "same"
        rows, columns = rows.through(height, padded), columns.through(width, padded)
    return rows, columns


def windows(length: int, side: int, field: ReceptiveField) -> Iterator[Window]:
    """Yield overlapping windows of `side` pixels, whose outputs follow each other and make up the whole.

    All have the same length; one is enough where the image is not longer than a window.

    Raises:
        ValueError: `side` is not larger than what has to be cut off.
    """
    if side <= field.before + field.after:
        raise ValueError(
            f"side: {side} is not larger than the receptive field, {field.before} + {field.after}"
        )
    done = 0
    while done < length - field.lost:
        start = max(0, min(done - field.before, length - side))
        stop = min(start + side, length)
        last = length - field.lost if stop == length else stop - field.after
        yield Window(start, stop, done, last)
        done = last


def tiled(
    network: Callable[[NDArray[Any]], NDArray[Any]],
    image: NDArray[Any],
    field: tuple[ReceptiveField, ReceptiveField],
    side: int,
) -> NDArray[Any]:
    """Return the output of `network` for `image`, (H, W) or (H, W, C), in the dtype that it gives.

    Args:
        network: A function from such arrays to such arrays; it is called with windows of at most
            `side` x `side` pixels, all of the same shape.

    Raises:
        ValueError: `side` is too small (see `windows`), or the image is so small that nothing is left of it.
    """
    rows, columns = (
        list(windows(length, side, axis)) for length, axis in zip(image.shape[:2], field, strict=True)
    )
    if not rows or not columns:
        raise ValueError(f"of {image.shape[0]}x{image.shape[1]} pixels nothing is left")
    result = None
    for row in rows:
        for column in columns:
            output = network(image[row.start : row.stop, column.start : column.stop])
            if result is None:
                result = np.empty((rows[-1].last, columns[-1].last, *output.shape[2:]), output.dtype)
            result[row.first : row.last, column.first : column.last] = output[
                row.first - row.start : row.last - row.start,
                column.first - column.start : column.last - column.start,
            ]
    assert result is not None
    return result
