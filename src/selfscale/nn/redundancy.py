"""Filters that can go without training: those that never fire, and duplicates up to scale.

Taking one away leaves the network's output as it is, on the images looked at or on every image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import IMAGES_PER_CALL, to_float
from selfscale.nn.probe import Probe
from selfscale.records import Filter
from selfscale.search.importance import cosine_similarity

# Of each weight, in a comparison of two filters: some 10 float32 roundings.
TOLERANCE = 1e-6

HOMOGENEOUS_ACTIVATIONS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
HOMOGENEOUS_LAYERS = (
    keras.layers.LeakyReLU,
    keras.layers.Dropout,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.UpSampling2D,
)


class Redundant(NamedTuple):
    """A filter to switch off, whose output is always `factor` (0 to 1) times that of its twin.

    `twin` is a filter of the same layer, or None with a factor of 0 where the output is always zero.
    """

    filter: Filter
    twin: Filter | None = None
    factor: float = 0.0


def find(network: MaskedNetwork, probe: Probe, images: NDArray[np.uint8]) -> Redundant | None:
    """The first filter that may be removed and is redundant, or None; changes nothing.

    Duplicates come first, since weights alone show them. `images` are all training images, uint8
    (N, H, W, C). They are gone through only when a filter is zero on all images of the `probe`,
    and only until every such filter has fired.
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
    """Switch a filter off, and let the next layer read its twin as much more as it read the filter.

    `redundant` was found in the network as it is now. The output stays the same but for float32
    rounding; without a twin, exactly the same on the images in which the filter never fires.

    Raises:
        ValueError: the filter is off already, or is the last one of its layer.
    """
    filter, twin, factor = redundant
    network.disable(filter)
    if twin is not None:
        reader = network.blocks[network.position(filter.layer) + 1].convolution
        kernel = reader.kernel.numpy()
        kernel[:, :, network.channel(twin)] += factor * kernel[:, :, network.channel(filter)]
        reader.kernel.assign(kernel)


def silent(network: MaskedNetwork, images: NDArray[np.uint8], suspects: Sequence[Filter]) -> list[Filter]:
    """Those enabled filters of `suspects` whose activation is zero at every pixel of all `images`.

    uint8 (N, H, W, C); only a few are in memory at a time. The activation is what the filter's
    block puts out when nothing is trained.
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
    """By hidden layer, up to the deepest that is asked for: which channels are not zero everywhere."""
    fired = {}
    x, enabled = to_float(images), network.enabled()
    for layer in network.layers[: network.position(deepest) + 1]:
        for part in network.block(layer).layers:
            x = part(x, training=False)
        x = x * enabled[network.position(layer)].astype(np.float32)
        fired[layer] = tf.reduce_any(x != 0, axis=(0, 1, 2)).numpy()
    return fired


def duplicate(network: MaskedNetwork, layer: int) -> Redundant | None:
    """The first enabled filter of a hidden layer that is a positive multiple of another one, or None.

    The smaller of the two is the redundant one, so that what the next layer gains cannot overflow.
    Every weight (kernel and bias) must agree to 1e-6 of itself, those apart that read disabled
    filters. None also where the block's layers do not carry a scale through.
    """
    if not all(map(_positively_homogeneous, network.block(layer).layers)):
        return None
    indices = np.flatnonzero(network.active[layer]).tolist()
    rows = _effective_weights(network, layer)[indices].astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    alike = cosine_similarity(rows) > 1 - TOLERANCE
    np.fill_diagonal(alike, False)
    for row, other in np.argwhere(alike & (lengths[:, None] <= lengths)).tolist():
        factor = float(lengths[row] / lengths[other])
        if np.allclose(rows[row], factor * rows[other], rtol=TOLERANCE, atol=0):
            return Redundant(Filter(layer, indices[row]), Filter(layer, indices[other]), factor)
    return None


def _effective_weights(network: MaskedNetwork, layer: int) -> np.ndarray:
    """`filter_weights` without the columns that read disabled filters: what they hold means nothing."""
    convolution = network.block(layer).convolution
    position = network.position(layer)
    reads = network.enabled()[position - 1] if position else np.ones(convolution.kernel.shape[2], bool)
    columns = np.tile(reads, prod(convolution.kernel_size))
    return network.filter_weights(layer)[:, np.append(columns, np.ones(int(convolution.use_bias), bool))]


def _positively_homogeneous(layer: keras.layers.Layer) -> bool:
    """Whether a positive factor on a channel passes through a layer (a convolution: its activation)."""
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Activation):
        return layer.activation in HOMOGENEOUS_ACTIVATIONS
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and layer.threshold == 0
    return isinstance(layer, HOMOGENEOUS_LAYERS)
