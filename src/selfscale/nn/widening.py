"""Widening: new filters in a layer, or a new layer, with the output unchanged at first."""

from __future__ import annotations

import keras
import numpy as np

from selfscale.decisions import INSERT_LAYER, Filter, GrowthStep
from selfscale.nn.alterations import reinitialize
from selfscale.nn.fcn import Block, chained
from selfscale.nn.graph_growth import grow
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.redundancy import silent

REDRAWS = 10  # of new filters that are zero everywhere


def grown(
    network: MaskedNetwork, growth: GrowthStep, images: np.ndarray, rng: np.random.Generator
) -> MaskedNetwork:
    """Return a new, grown network of the same output (within 1e-5); `network` is not changed.

    Args:
        network: Network to start from.
        growth: Which filters or layer to add.
        images: uint8 of shape `(N, H, W, C)`; new filters must not be zero on all of them.
        rng: Source of randomness.

    Raises:
        ValueError: There is no such layer, or nothing can be inserted behind it.
    """
    if growth.alteration == INSERT_LAYER:
        (layer,) = growth.layers
        return inserted(network, layer - 1)
    for layer, count in growth.layers.items():
        network = widened(network, layer, count, images, rng)
    return network


def widened(
    network: MaskedNetwork, layer: int, count: int, images: np.ndarray, rng: np.random.Generator
) -> MaskedNetwork:
    """Return a new network with `count` more filters in a hidden layer.

    They are drawn by the layer's own initializers, and the weights that read them start at zero, so that
    the output stays exactly the same and each has a gradient of its own (Evci et al. 2022,
    arXiv:2201.05125; Net2WiderNet, Chen et al. 2016, arXiv:1511.05641, copies filters instead, and
    tells them apart by noise). A filter that is zero everywhere on the images is redrawn.
    """
    position, first = network.position(layer), network.widths[layer]
    # The generator of the new filters draws them below.
    model = grow(network.model, network.masks.graph, position, count, np.random.default_rng(0))
    widths = [width + count * (number == layer) for number, width in enumerate(network.widths)]
    indices = list(network.indices)
    indices[position] = np.append(indices[position], np.arange(first, first + count))
    larger = MaskedNetwork(model, widths, network.layers, indices)
    larger.disable(*network.disabled())
    larger.freeze(*network.frozen())
    to_draw = [Filter(layer, index) for index in range(first, first + count)]
    for _ in range(REDRAWS):
        reinitialize(larger, to_draw, rng)
        if not (to_draw := silent(larger, images, to_draw)):
            break
    return larger


def inserted(network: MaskedNetwork, layer: int) -> MaskedNetwork:
    """Return a new network with an identity layer of as many filters behind a hidden layer.

    Identity kernels behind a ReLU change nothing (Net2DeeperNet, Chen et al. 2016, arXiv:1511.05641).
    """
    block = network.block(layer)
    if not hands_on_positive(block):
        raise ValueError(f"what layer {layer} hands on may be negative: no ReLU can be inserted behind it")
    convolution = block.convolution
    taken = {old.name for old in network.model.layers}
    name = next(name for n in range(len(taken) + 1) if (name := f"inserted_{n}") not in taken)
    more = keras.layers.Conv2D.from_config(
        {
            **convolution.get_config(),
            "name": name,
            "strides": (1, 1),
            "dilation_rate": (1, 1),
            "padding": "same",
            "activation": "relu",
        }
    )
    more.build((None, None, None, block.filters))
    kernel = np.zeros(more.kernel.shape, np.float32)
    center = [(side - 1) // 2 for side in more.kernel_size]
    kernel[*center] = np.eye(block.filters)
    more.set_weights([kernel, *(np.zeros_like(bias) for bias in more.get_weights()[1:])])
    place, count = network.position(layer) + 1, block.filters
    widths = [*network.widths[: layer + 1], count, *network.widths[layer + 1 :]]
    layers = [number + (number > layer) for number in network.layers]
    layers.insert(place, layer + 1)
    indices = [*network.indices[:place], np.arange(count), *network.indices[place:]]
    chain = [*network.blocks[:place], Block(more, ()), *network.blocks[place:]]
    larger = MaskedNetwork(chained(network.model, chain), widths, layers, indices)
    # A disabled filter of the layer before is zero there, and stays so.
    for change, filters in ((larger.disable, network.disabled()), (larger.freeze, network.frozen())):
        change(*(Filter(f.layer + (f.layer > layer), f.index) for f in filters))
    return larger


def hands_on_positive(block: Block) -> bool:
    """Return whether a block's output is never negative: its last activation is a ReLU."""
    positive = block.convolution.activation is keras.activations.relu
    for layer in block.followers:
        if isinstance(layer, keras.layers.BatchNormalization):
            positive = False
        elif isinstance(layer, keras.layers.Activation):
            positive = layer.activation is keras.activations.relu
        elif isinstance(layer, keras.layers.ReLU):
            positive = not (layer.negative_slope or layer.threshold) and layer.max_value is None
    return positive
