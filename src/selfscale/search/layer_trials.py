"""Trials that remove whole hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfscale.nn.layer_removal import without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.records import REMOVE_LAYER, DecisionRecord, Filter, layers_of
from selfscale.search.trial import Round, Trial


def cheapest_layers(round: Round, layers: Sequence[int], count: int) -> Trial:
    """The removal of those layers without which, one by one, the loss on training images is least."""
    rng = round.rng(3)
    losses = {layer: loss_without(round.network, layer, round.probe, rng) for layer in layers}
    chosen = sorted(layers, key=losses.__getitem__)[:count]
    return layer_trial(round, chosen, 0, -losses[chosen[-1]])


def loss_without(network: MaskedNetwork, layer: int, probe: Probe, rng: np.random.Generator) -> float:
    """The loss without a layer on the probe's images, before any training."""
    return probe.loss_of(without_layer(network, layer, probe.images, probe.targets, 0, rng))


def layer_trial(round: Round, layers: Sequence[int], attempt: int, score: float) -> Trial:
    active, chosen = round.network.active, round.settings.layers
    filters = tuple(
        Filter(layer, int(index)) for layer in sorted(layers) for index in np.flatnonzero(active[layer])
    )
    return Trial(REMOVE_LAYER, filters, chosen.steps, score, chosen.learning_rate, attempt)


def layer_tries(records: Sequence[DecisionRecord]) -> dict[int, int]:
    """How often each layer's removal by itself was tried since a removal was kept."""
    tried: dict[int, int] = {}
    for record in records:
        if record.alteration == REMOVE_LAYER:
            layer, *others = layers_of(record.filters)
            if record.accepted:
                tried = {}
            elif not others:
                tried[layer] = tried.get(layer, 0) + 1
    return tried
