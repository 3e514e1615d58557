"""Grows a group of channels of any model: the new ones are read by zeros at first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from selfscale.nn.channel_masks import entries, initial
from selfscale.nn.graph import ONLY_ONE, ChannelGraph, Group, trace
from selfscale.nn.graph_recording import weight_of
from selfscale.nn.graph_walk import every_layer
from selfscale.nn.rewriting import build, compare, copy_weights, edited, pairs


def grow(
    model: keras.Model, graph: ChannelGraph, group: int, count: int, rng: np.random.Generator
) -> keras.Model:
    """Return a plain Keras model with new channels in a group, checked to compute the same as before.

    The layers' own initializers draw the new channels; whatever reads them starts at zero.

    Args:
        model: Model that `graph` was traced from.
        graph: Its channels.
        group: Index of the group.
        count: Number of new channels, the last ones of the group in the new model.
        rng: Source of their weights.

    Raises:
        ValueError: The group is pinned, `count` is not positive, or rebuilding changes the model.
        ArithmeticError: Outputs on random inputs differ by more than 1e-4 of the largest.
    """
    chosen = graph.groups[group]
    if not growable(chosen):
        raise ValueError(f"group {group} ({chosen.name}) is pinned: {chosen.pins[0]}")
    if count < 1:
        raise ValueError(f"{count} channels can't be added: at least one")
    last = np.flatnonzero((graph.places[0] == group) & (graph.places[1] == chosen.size - 1))
    sizes = {key: len(ids) + count * int(np.isin(ids, last).sum()) for key, ids in graph.settings.items()}
    larger = build(model, edited(model, sizes))
    others = trace(larger, trust_lambda=True)
    if len(others.groups) != len(graph.groups):
        raise ValueError(f"{model.name} shares layers with a model nested in it, which is lost when rebuilt")
    for path, old, new in pairs(model, larger):
        names = [weight for layer, weight in graph.weights if layer == path]
        if not names:
            copy_weights(old, new, {})
        for name in names:
            value = initial(new, name, rng)
            _fill(value, keras.ops.convert_to_numpy(weight_of(old, name)), graph, others, (path, name))
            weight_of(new, name).assign(value)
    for part in others.groups[group].readers:
        weight = weight_of(dict(every_layer(larger))[part.layer], part.weight)
        value = keras.ops.convert_to_numpy(weight).copy()
        np.moveaxis(value, part.axis, 0)[entries(part, range(chosen.size, chosen.size + count))] = 0
        weight.assign(value)
    compare(model, larger)
    return larger


def growable(group: Group) -> bool:
    """Return whether a group can get channels: one channel by itself can, others that are pinned not."""
    return not group.pins or group.pins == (ONLY_ONE,)


def _fill(value: np.ndarray, old: np.ndarray, graph: ChannelGraph, others: ChannelGraph, key: Any) -> None:
    """Set the entries of a larger weight that the old one has, too."""
    positions, sources = ([np.arange(size) for size in each.shape] for each in (value, old))
    for axis, channels in others.weights[key].items():
        before = {place: at for at, place in enumerate(_places(graph, graph.weights[key][axis]))}
        after = enumerate(_places(others, channels))
        matches = [(at, before[place]) for at, place in after if place in before]
        positions[axis], sources[axis] = np.array(matches).T
    value[np.ix_(*positions)] = old[np.ix_(*sources)]


def _places(graph: ChannelGraph, channels: np.ndarray) -> list[tuple[int, ...]]:
    """Return group, channel and occurrence along an axis: the same in a model and the grown one."""
    seen: Counter[tuple[int, ...]] = Counter()
    places = []
    for place in map(tuple, graph.places[:, channels].T.tolist()):
        seen[place] += 1
        places.append((*place, seen[place]))
    return places
