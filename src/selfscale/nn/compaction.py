"""Compaction: the smaller, equivalent model, without disabled filters and the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from selfscale.nn import rewriting
from selfscale.nn.fcn import size
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Trainer

TOLERANCE = 1e-5
CHECKED_SIZES = ((32, 32), (17, 41), (64, 23))
# Multiply-accumulates that take as long as tracing a network anew: some seconds of one core.
TRACE = 1e11
PASSES = 3  # of a training step: forward, gradients by the weights, gradients by the inputs


def compact(network: MaskedNetwork) -> keras.Model:
    """Return a plain Keras model with only the enabled filters, checked against the masked network.

    Leaving out what reads a disabled filter changes nothing but the order of summation.

    Raises:
        ArithmeticError: The outputs differ by more than 1e-5 (a bug, or weights far out of range).
    """
    model = rewriting.rewrite(network.model, network.masks.graph, network.masks.keep, check=False)
    verify(network, model)
    return model


def verify(network: MaskedNetwork, model: keras.Model) -> None:
    """Compare the outputs on random images of several sizes.

    Raises:
        ArithmeticError: They differ by more than 1e-5, relative to the largest where that exceeds 1.
    """
    rng, channels = np.random.default_rng(0), network.model.input_shape[-1]
    for sides in CHECKED_SIZES:
        images = rng.random((2, *sides, channels), dtype=np.float32)
        rewriting.verify(network.model, model, images, TOLERANCE, least=1.0)


def removed_filters(network: MaskedNetwork) -> np.ndarray:
    """Return the one-hot matrix of the filters to remove (thesis 2.3.2).

    Returns:
        uint8 array of shape `(hidden layers, widest layer)`: 1 is removed, a removed layer is a row of
        ones, and rows of narrower layers are padded with zeros.
    """
    active = network.active
    matrix = np.zeros((len(active), max((a.size for a in active), default=0)), np.uint8)
    for row, mask in zip(matrix, active, strict=True):
        row[: mask.size] = ~mask
    return matrix


def pays(trainer: Trainer, steps: int) -> bool:
    """Return whether a session of `steps` saves more in the compact network than it costs to trace it.

    Counted, not timed: the same seed has to decide alike on every machine.
    """
    network, settings = trainer.network, trainer.settings
    height, width = trainer.train.images.shape[1:3]
    pixels = min(settings.crop or height, height) * min(settings.crop or width, width)
    saved = size(network.model).macs_per_pixel - network.size().macs_per_pixel
    return PASSES * saved * settings.batch * pixels * steps > TRACE


def compacted(network: MaskedNetwork) -> MaskedNetwork:
    """Return a new masked network without the disabled filters, of the same output (within 1e-5).

    Layers and filters keep their numbers; what is frozen stays frozen.
    """
    indices = [
        numbers[enabled] for numbers, enabled in zip(network.indices, network.enabled()[:-1], strict=True)
    ]
    smaller = MaskedNetwork(compact(network), network.widths, network.layers, indices)
    smaller.freeze(*network.frozen())
    return smaller


def with_filters(
    network: MaskedNetwork, layers: Sequence[int], indices: Sequence[np.ndarray]
) -> MaskedNetwork:
    """Return a new network of these layers only, each with these filters only, all enabled."""
    smaller = with_layers(network, layers)
    for layer, numbers in zip(layers, indices, strict=True):
        kept = numbers.tolist()
        smaller.disable(*(filter for filter in smaller.filters(layer) if filter.index not in kept))
    return compacted(smaller)
