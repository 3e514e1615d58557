"""The frontier below the tolerance: networks that are ever smaller, each as good as its size allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np

from selfscale.decisions import Filter
from selfscale.errors import counted
from selfscale.nn.compaction import compact, compacted, pays
from selfscale.nn.layer_removal import removable_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.refit import refit_if_better
from selfscale.nn.trainer import Plan, Trainer
from selfscale.progress import SILENT, Progress
from selfscale.search_config import Minimization

# A removal that costs less than this share of the loss is free: then the larger saving decides.
FREE = 1e-3
LEAST_STEPS = 50  # of a session that is worth its start


class Point(NamedTuple):
    """A compact network of the frontier, and the training steps that it took."""

    model: keras.Model
    steps: int


def frontier(
    trainer: Trainer,
    settings: Minimization,
    *,
    seed: int,
    steps: int,
    progress: Progress = SILENT,
) -> Iterator[Point]:
    """Remove filters and layers whatever that costs, and yield the network after each removal.

    The removal that costs the least loss for the multiply-accumulates that it saves comes next, before
    any session; then the network is trained. It ends with the smallest network, or when the steps are
    used up, which are shared equally by the removals that are left. The trainer's own network stays.

    Args:
        trainer: Trainer of the network to start from.
        settings: Section `minimization`.
        seed: Seed of the run.
        steps: Training steps at most.
        progress: Listener.
    """
    current, number = trainer.of(compacted(trainer.network)), 0
    while removals := sum(current.network.filters_kept) - 1:
        rng = np.random.default_rng((seed, number, 7))
        count = min(settings.removal.steps, steps // removals)
        if count < LEAST_STEPS:
            return
        probe = Probe(current.network, current.train, current.loss)
        choice = cheapest(current.network, probe, rng)
        if isinstance(choice, Filter):
            before = current.network.state()
            current.network.disable(choice)
            refit_if_better(current.network, before, probe.images[::2], rng, probe.loss_of)
        else:
            current = current.of(without_layer(current.network, choice, current.train, 0, rng))
        current.reset()
        told = progress.of(tried=f"frontier, {counted(sum(current.network.filters_kept), 'filter')} left")
        session, _ = current.session(Plan(count, 1, settings.learning_rate), rng, told)
        if session.ended != "completed":
            return
        yield Point(compact(current.network), session.steps)
        steps, number = steps - session.steps, number + 1
        if pays(current, settings.removal.steps):
            current = current.of(compacted(current.network))


def cheapest(network: MaskedNetwork, probe: Probe, rng: np.random.Generator) -> Filter | int:
    """Return the filter, or the layer by its number, whose removal costs least for what it saves."""
    filters, now = network.removable(), probe.loss_of(network)
    losses = [*np.minimum(probe.losses_without(filters), probe.losses_refitted(filters, rng))]
    kept, layers = network.filters_kept, removable_layers(network)
    without = [[n - (layer == each.layer) for layer, n in enumerate(kept)] for each in filters]
    for layer in layers:
        losses.append(probe.loss_of(without_layer(network, layer, probe.split, 0, rng)))
        without.append([n * (other != layer) for other, n in enumerate(kept)])
    saved = multiplications(network, kept) - np.array([multiplications(network, n) for n in without])
    costs = np.maximum(np.log(np.array(losses) / now), FREE) / saved
    best = int(np.argmin(costs))
    return filters[best] if best < len(filters) else layers[best - len(filters)]


def multiplications(network: MaskedNetwork, kept: Sequence[int]) -> float:
    """Return those of a position of the kernels, with so many filters in each layer, 0: without it."""
    inputs = [network.model.input_shape[-1], *(count for count in kept if count)]
    return float(np.dot(inputs, [*inputs[1:], 1]))
