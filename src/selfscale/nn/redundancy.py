"""Redundant filters, removable without training: those that never fire, and duplicates up to scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from selfscale.decisions import Filter
from selfscale.nn.fcn import RESIZING
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import IMAGES_PER_CALL, to_float
from selfscale.nn.probe import Probe
from selfscale.nn.similarity import cosine_similarity

# Of each weight, in a comparison of two filters: some 10 float32 roundings.
TOLERANCE = 1e-6

HOMOGENEOUS_ACTIVATIONS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
HOMOGENEOUS_LAYERS = (keras.layers.LeakyReLU, keras.layers.Dropout, *RESIZING)


class Redundant(NamedTuple):
    """A filter to disable, whose output is always `factor` (0 to 1) times that of its twin.

    `twin` is a filter of the same layer; None, with a factor of 0, if the output is always zero.
    """

    filter: Filter
    twin: Filter | None = None
    factor: float = 0.0


def find(network: MaskedNetwork, probe: Probe, images: NDArray[np.uint8]) -> Redundant | None:
    """Return the first removable filter that is redundant, or None; changes nothing.

    Duplicates come first, since weights alone show them. All images are read only if a filter is zero
    on those of the probe, and only until every such filter has fired.

    Args:
        network: Network to search.
        probe: Measurements of that network.
        images: All training images, uint8 of shape `(N, H, W, C)`.
    """
    removable = network.removable()
    for layer in sorted({filter.layer for filter in removable}):
        if (found := duplicate(network, layer)) is not None:
            return found
    # Not by the share of zeros: over more than 2**24 pixels, its float32 mean of ones is below 1.
    means = probe.activations()
    suspects = [filter for filter in removable if means[filter.layer][filter.index] == 0]
    never_fired = silent(network, images, suspects)
    return Redundant(never_fired[0]) if never_fired else None


def merge(network: MaskedNetwork, redundant: Redundant) -> None:
    """Disable a filter, and add its weights in the next layer, times the factor, to its twin's.

    The output stays the same up to float32 rounding; without a twin, exactly the same on all images on
    which the filter never fires.

    Raises:
        ValueError: The filter is disabled already, or is the last one of its layer.
    """
    filter, twin, factor = redundant
    reader = network.blocks[network.position(filter.layer) + 1].convolution
    weights = reader.kernel.numpy()[:, :, network.channel(filter)]
    network.disable(filter)
    if twin is not None:
        kernel = reader.kernel.numpy()
        kernel[:, :, network.channel(twin)] += factor * weights
        reader.kernel.assign(kernel)


def silent(network: MaskedNetwork, images: NDArray[np.uint8], suspects: Sequence[Filter]) -> list[Filter]:
    """Return the enabled suspects whose block's output is zero at every pixel of all images.

    `images` are uint8 of shape `(N, H, W, C)`; a few at a time are in memory.
    """
    left = list(suspects)
    for start in range(0, len(images), IMAGES_PER_CALL):
        if not left:
            break
        deepest = max(filter.layer for filter in left)
        fired = _fired(network, images[start : start + IMAGES_PER_CALL], deepest)
        left = [filter for filter in left if not fired[filter.layer][network.channel(filter)]]
    return left


def _fired(network: MaskedNetwork, images: NDArray[np.uint8], deepest: int) -> dict[int, NDArray[np.bool_]]:
    """Return, for each hidden layer up to `deepest`, which channels are not zero everywhere."""
    fired, x = {}, to_float(images)
    for layer in network.layers[: network.position(deepest) + 1]:
        for part in network.block(layer).layers:
            x = part(x, training=False)
        fired[layer] = tf.reduce_any(x != 0, axis=(0, 1, 2)).numpy()
    return fired


def duplicate(network: MaskedNetwork, layer: int) -> Redundant | None:
    """Return the first enabled filter of a hidden layer that is a positive multiple of another, or None.

    The smaller of the two is the redundant one, so that the next layer's weights cannot overflow. Every
    weight (kernel and bias) must agree to 1e-6 of itself, except those that read disabled filters.
    None also if the block's layers are not positively homogeneous.
    """
    if not all(map(_positively_homogeneous, network.block(layer).layers)):
        return None
    indices = np.flatnonzero(network.active[layer]).tolist()
    rows = effective_weights(network, layer)[indices].astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    alike = cosine_similarity(rows) > 1 - TOLERANCE
    np.fill_diagonal(alike, False)
    for row, other in np.argwhere(alike & (lengths[:, None] <= lengths)).tolist():
        factor = float(lengths[row] / lengths[other])
        if np.allclose(rows[row], factor * rows[other], rtol=TOLERANCE, atol=0):
            return Redundant(Filter(layer, indices[row]), Filter(layer, indices[other]), factor)
    return None


def effective_weights(network: MaskedNetwork, layer: int) -> np.ndarray:
    """Return a hidden layer's `filter_weights` without the columns that read disabled filters."""
    rows = network.filter_weights(layer)
    if layer not in network.layers:
        return rows
    convolution = network.block(layer).convolution
    columns = np.tile(network.reads(layer), prod(convolution.kernel_size))
    return rows[:, np.append(columns, np.ones(int(convolution.use_bias), bool))]


def _positively_homogeneous(layer: keras.layers.Layer) -> bool:
    """Return whether a layer (of a convolution, its activation) passes a positive factor on."""
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Activation):
        return layer.activation in HOMOGENEOUS_ACTIVATIONS
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and layer.threshold == 0
    return isinstance(layer, HOMOGENEOUS_LAYERS)
