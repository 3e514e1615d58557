"""A whole network in one small picture: every filter's kernels, and what it puts out for an image.

It is drawn of each network that a minimization keeps, so that one sees the network shrink.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.inference.remains import REMOVING, Layers
from selfscale.records import DecisionRecord
from selfscale.reporting.sheet import Filter, Row, compacted, png

SIDE = 160  # pixels of the middle of an image, on which the network is shown
EXAMPLES = 3  # images


class Example(NamedTuple):
    """An image and what is wanted of it: float32 (height, width), values from 0 to 1."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]


def examples(images: NDArray[np.uint8], targets: NDArray[np.generic]) -> list[Example]:
    """The middles of the first images, uint8 (N, H, W, 1), and of their targets (N, H, W, 1)."""
    top, left = (max(0, (length - SIDE) // 2) for length in images.shape[1:3])
    some = (slice(EXAMPLES), slice(top, top + SIDE), slice(left, left + SIDE), 0)
    gray = images[some].astype(np.float32) / np.float32(255)
    return [Example(*pair) for pair in zip(gray, targets[some].astype(np.float32), strict=True)]


def overviews(
    model: keras.Model,
    active: Sequence[NDArray[np.bool_]],
    records: Sequence[DecisionRecord],
    shown: Sequence[Example],
) -> list[bytes]:
    """A PNG per example of a compact network; equal networks make equal bytes, and no random number is drawn.

    `active` says for each hidden layer which of its filters are left, `records` what was decided so far.
    """
    removed_by = {
        filter: record.number
        for record in records
        if record.accepted and record.alteration in REMOVING
        for filter in record.filters
    }
    layers = Layers(model, [~filters for filters in active], removed_by)
    features = keras.Model(model.input, [block.layers[-1].output for block in layers.blocks], name="features")
    title = f"after decision {records[-1].number}" if records else "initial network"
    left = ", ".join(str(filters.sum()) for filters in active)
    title = f"{title}: filters {left}; {model.count_params()} parameters"
    return [png(title, *example, list(rows(layers, features, example.image))) for example in shown]


def rows(layers: Layers, features: keras.Model, image: NDArray[np.float32]) -> Iterator[Row]:
    """Each layer that the network ever had, on an image, the output layer last."""
    outputs = [np.asarray(output)[0] for output in features(image[None, ..., None], training=False)]
    reads, slots = [0], 1
    for layer, title, position in layers:
        channels, kernels = [], iter(())
        if position is not None:
            channels = [compacted(channel) for channel in np.moveaxis(outputs[position], -1, 0)]
            weights = np.asarray(layers.blocks[position].convolution.kernel, np.float32)
            kernels = iter(np.moveaxis(weights, (-1, -2), (0, 1)))
        cells = layers.cells(layer, channels)
        filters = [
            Filter(*cell, {} if cell.values is None else dict(zip(reads, next(kernels), strict=True)))
            for cell in cells
        ]
        yield Row(title, filters, slots)
        slots = max(slots, len(cells))
        if position is not None:
            reads = [index for index, cell in enumerate(cells) if cell.values is not None]
