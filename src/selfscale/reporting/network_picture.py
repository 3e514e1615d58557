"""Pictures of what a minimization came to: each accepted network, and the outputs before and after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.decisions import DecisionRecord
from selfscale.inference.drawing import draw_network, limit, png
from selfscale.inference.layer_views import REMOVING, Floats, NetworkView
from selfscale.reporting.statistics import Result, score

SIDE = 160  # pixels of the middle of an image, on which the network is shown
EXAMPLES = 3  # images


class Example(NamedTuple):
    """An image and its target: float32 (height, width), values from 0 to 1."""

    image: Floats
    target: Floats


def examples(images: NDArray[np.uint8], targets: NDArray[np.generic]) -> list[Example]:
    """Take the middles of the first images, uint8 (N, H, W, 1), and of their targets (N, H, W, 1)."""
    top, left = (max(0, (length - SIDE) // 2) for length in images.shape[1:3])
    some = (slice(EXAMPLES), slice(top, top + SIDE), slice(left, left + SIDE), 0)
    gray = images[some].astype(np.float32) / np.float32(255)
    return [Example(*pair) for pair in zip(gray, targets[some].astype(np.float32), strict=True)]


def network_pictures(
    model: keras.Model,
    active: Sequence[NDArray[np.bool_]],
    records: Sequence[DecisionRecord],
    shown: Sequence[Example],
) -> list[bytes]:
    """Draw a PNG per example; equal networks make equal bytes, and no random number is drawn.

    Args:
        model: The compact network.
        active: For each hidden layer, which of its filters are left, boolean (filters,).
        records: The decisions so far.
        shown: The images.
    """
    removed_by = {
        filter: record.number
        for record in records
        if record.accepted and record.alteration in REMOVING
        for filter in record.filters
    }
    network = NetworkView(model, [~filters for filters in active], removed_by)
    title = f"after decision {records[-1].number}" if records else "initial network"
    left = ", ".join(str(filters.sum()) for filters in active)
    title = f"{title}: filters {left}; {model.count_params()} parameters"
    return [
        png(partial(draw_network, title, *example, list(network.layers(example.image)))) for example in shown
    ]


def before_and_after(
    image: NDArray[np.uint8],
    target: NDArray[np.generic],
    initial: keras.Model,
    minimized: keras.Model,
    result: Result,
) -> dict[str, Floats]:
    """Apply both networks of a result to an image, (H, W, 1).

    Returns:
        Photograph, wanted output and those of the networks by their titles, values 0..1 (H, W). White in
        all but the photograph is the wanted output's largest value.
    """
    photograph, wanted = image / np.float32(255), target.astype(np.float32)
    white = limit([wanted])
    outputs = [np.asarray(model(photograph[None]))[0] for model in (initial, minimized)]
    shown = [photograph, *(np.clip(values / white, 0, 1) for values in (wanted, *outputs))]
    titles = (
        "photograph",
        f"wanted (white: {white:.2g})",
        f"initial: {result['macs_per_pixel_initial']:g} MACs/pixel, "
        f"error {score(result, 'test', 'initial'):#.2g}",
        f"minimized: {result['macs_per_pixel']:g} MACs/pixel, error {score(result, 'test'):#.2g}",
    )
    return {title: values[..., 0] for title, values in zip(titles, shown, strict=True)}
