"""The search goes on in a smaller network: disabled filters cut out, everything else as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfscale.nn.compaction import compact
from selfscale.nn.fcn import size
from selfscale.nn.layer_removal import with_layers
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Trainer

# Multiply-accumulates that take as long as tracing a network anew: some seconds of one core.
TRACE = 1e11
PASSES = 3  # of a training step: forward, gradients by the weights, gradients by the inputs


def pays(trainer: Trainer, steps: int) -> bool:
    """Whether one session of so many steps saves more in the smaller network than it costs to trace it.

    Counted, not timed: the same seed has to decide alike on every machine.
    """
    network, settings = trainer.network, trainer.settings
    height, width = trainer.train.images.shape[1:3]
    pixels = min(settings.crop or height, height) * min(settings.crop or width, width)
    saved = size(network.model).macs_per_pixel - network.size().macs_per_pixel
    return PASSES * saved * settings.batch * pixels * steps > TRACE


def shrunk(network: MaskedNetwork) -> MaskedNetwork:
    """A new network without the disabled filters, with the same output (within 1e-5) and switches.

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
    """A new network with these layers only, and in each of them with these filters only, all on."""
    smaller = with_layers(network, layers)
    for layer, numbers in zip(layers, indices, strict=True):
        kept = numbers.tolist()
        smaller.disable(*(filter for filter in smaller.filters(layer) if filter.index not in kept))
    return shrunk(smaller)
