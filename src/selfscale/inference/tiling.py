"""Large images through a network in overlapping tiles, with the result of the whole image.

A pixel of the output depends on the pixels within the network's reach only, which is the sum of its
convolutions' reaches. So a tile that is larger by that much on each side has, away from its own borders,
what the whole image would have there. "Same" padding puts zeros around the tile: at the border of
the image that is what every layer of the whole network would see, too, and nothing is cut off there;
everywhere else the zeros spoil no more than the reach, which is cut off.

So every output is the sum of the same products. Only their order is TensorFlow's, and may depend on the
size of the image: of 2.9 million pixels of 60 random networks 311 differed in the last bit of a float32,
none as an 8-bit picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.nn.fcn import RESIZING, blocks


class Reach(NamedTuple):
    """How far along one axis an output pixel sees: so many input pixels before and after its own place.

    The output is `lost` pixels shorter than the input (convolutions without padding); its first pixel
    has the place of the input's first one.
    """

    before: int = 0
    after: int = 0
    lost: int = 0


class Window(NamedTuple):
    """Input pixels `start` to `stop` of one axis, which give the output pixels `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int


def reach(model: keras.Model) -> tuple[Reach, Reach] | None:
    """The reach of a chain of plain layers along height and width.

    None if a layer changes the resolution (strides, pooling, upsampling): what a tile gives then depends
    on where it lies.

    Raises:
        UserError: the model is no chain of plain layers.
    """
    rows, columns = Reach(), Reach()
    for block in blocks(model):
        convolution = block.convolution
        if convolution.strides != (1, 1) or any(isinstance(layer, RESIZING) for layer in block.followers):
            return None
        spans = [
            (side - 1) * dilation
            for side, dilation in zip(convolution.kernel_size, convolution.dilation_rate, strict=True)
        ]
        rows, columns = (
            further(axis, span, convolution.padding == "same")
            for axis, span in zip((rows, columns), spans, strict=True)
        )
    return rows, columns


def further(reach: Reach, span: int, padded: bool) -> Reach:
    """The reach with one more convolution, whose kernel covers `span` + 1 pixels.

    TensorFlow pads an even kernel by one zero more behind than before.
    """
    if not padded:
        return Reach(reach.before, reach.after + span, reach.lost + span)
    return Reach(reach.before + span // 2, reach.after + span - span // 2, reach.lost)


def windows(length: int, side: int, reach: Reach) -> Iterator[Window]:
    """Overlapping windows of `side` pixels, whose outputs lie one behind the other and make up the whole.

    All have the same length; one is enough where the image is not longer than a window.

    Raises:
        ValueError: `side` is not larger than what has to be cut off.
    """
    if side <= reach.before + reach.after:
        raise ValueError(f"side: {side} is not larger than the reach, {reach.before} + {reach.after}")
    done = 0
    while done < length - reach.lost:
        start = max(0, min(done - reach.before, length - side))
        stop = min(start + side, length)
        last = length - reach.lost if stop == length else stop - reach.after
        yield Window(start, stop, done, last)
        done = last


def tiled(
    network: Callable[[NDArray[Any]], NDArray[Any]],
    image: NDArray[Any],
    reach: tuple[Reach, Reach],
    side: int,
) -> NDArray[Any]:
    """What `network`, a function from arrays H,W to arrays H,W, makes of `image`, in the dtype that it gives.

    It is called with windows of at most `side` x `side` pixels, all of the same shape.

    Raises:
        ValueError: `side` is too small (see `windows`), or the image so small that nothing is left of it.
    """
    rows, columns = (
        list(windows(length, side, axis)) for length, axis in zip(image.shape, reach, strict=True)
    )
    if not rows or not columns:
        raise ValueError(f"of {image.shape[0]}x{image.shape[1]} pixels nothing is left")
    result = None
    for row in rows:
        for column in columns:
            output = network(image[row.start : row.stop, column.start : column.stop])
            if result is None:
                result = np.empty((rows[-1].last, columns[-1].last), output.dtype)
            result[row.first : row.last, column.first : column.last] = output[
                row.first - row.start : row.last - row.start,
                column.first - column.start : column.last - column.start,
            ]
    assert result is not None
    return result
