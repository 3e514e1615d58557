"""The channels of any functional or sequential Keras model: which go together, and which must stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from selfscale.nn.graph_bypasses import Bypass, find_bypasses
from selfscale.nn.graph_recording import FOLLOWER, PRODUCER, READER, Path, Recording
from selfscale.nn.graph_tracing import Tracing, check
from selfscale.nn.graph_walk import configuration, every_layer

ONLY_ONE = "it has one channel only"
Keep = Mapping[int, np.ndarray]  # group -> boolean, one per channel; a group that is left out is kept


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a weight holds a group's channels: entries along an axis, per channel."""

    layer: Path
    weight: str
    axis: int
    indices: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that the same layers produce, each removed by itself, in all layers that it lies in.

    A channel of a group may be several of a layer: grouped convolutions lose the same one of each group.

    Attributes:
        index: Its place in `ChannelGraph.groups`.
        name: Path of its first producer.
        size: Number of channels.
        pins: Why they must stay; empty if they may go. One channel always stays.
        producers: Weights that compute the channels.
        followers: Weights with an entry per channel, like those of normalization.
        readers: Weights that mix the channels.
    """

    index: int
    name: str
    size: int
    pins: tuple[str, ...]
    producers: tuple[Slice, ...]
    followers: tuple[Slice, ...]
    readers: tuple[Slice, ...]

    @property
    def removable(self) -> bool:
        return not self.pins


@dataclass(frozen=True)
class Cost:
    """What one example costs: multiply-accumulates and parameters (all weights)."""

    macs: int
    parameters: int


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The groups of a model's channels, from `trace`.

    Attributes:
        groups: All of them, in the order of the model.
        branches: Residual branches that may be removed.
        layers: Layers that may be removed, since they write as many channels as they read.
    """

    groups: tuple[Group, ...]
    branches: tuple[Bypass, ...]
    layers: tuple[Bypass, ...]
    # (layer, weight) -> axis -> numbers of the channels; (layer, keys into its configuration) -> the same
    weights: Mapping[tuple[Path, str], Mapping[int, np.ndarray]]
    settings: Mapping[tuple[Path, tuple[str | int, ...]], np.ndarray]
    _shapes: Mapping[tuple[Path, str], tuple[int, ...]] = field(repr=False)
    _products: tuple[tuple[Path, str, int], ...] = field(repr=False)
    _pairings: tuple[tuple[Path, int, tuple[np.ndarray, ...]], ...] = field(repr=False)
    _opaque: Mapping[Path, Cost] = field(repr=False)  # of layers without a rule
    places: np.ndarray = field(repr=False)  # group and channel, -1 if none, per numbered channel: (2, n)

    def kept(self, keep: Keep) -> np.ndarray:
        """Return which of the numbered channels are kept.

        Raises:
            ValueError: A mask has the wrong length, empties a group, or removes pinned channels.
        """
        kept = np.ones(self.places.shape[1], bool)
        for index, mask in keep.items():
            group, mask = self.groups[index], np.asarray(mask, bool)
            if mask.shape != (group.size,):
                raise ValueError(f"group {index} ({group.name}) has {group.size} channels, not {mask.shape}")
            if not mask.any():
                raise ValueError(f"group {index} ({group.name}) must keep one channel")
            if not mask.all() and group.pins:
                raise ValueError(f"group {index} ({group.name}) is pinned: {group.pins[0]}")
            members = self.places[0] == index
            kept[members] = mask[self.places[1, members]]
        return kept

    def removable(self) -> tuple[Group, ...]:
        """Return the groups that may lose channels.

        Raises:
            ValueError: There is none; the message lists why.
        """
        if groups := tuple(group for group in self.groups if group.removable):
            return groups
        pins = "; ".join(f"{group.name}: {group.pins[0]}" for group in self.groups)
        raise ValueError(f"no channel can be removed: {pins or 'no layer of the model has a rule'}")

    def cost(self, keep: Keep | None = None, without: Sequence[Bypass] = ()) -> Cost:
        """Return the cost of the model without what is masked or removed, by arithmetic alone.

        An axis of unknown size counts as 64, a layer without a rule as its kernels at each position.
        """
        kept = self.kept(keep or {})
        gone = {path for bypass in without for path in bypass.layers}

        def stays(path: Path) -> bool:
            return not any(path[:end] in gone for end in range(1, len(path) + 1)) if gone else True

        opaque = [cost for path, cost in self._opaque.items() if stays(path)]
        macs, parameters = sum(each.macs for each in opaque), sum(each.parameters for each in opaque)
        sizes = {}
        for key, shape in self._shapes.items():
            axes = self.weights.get(key, {})
            sizes[key] = math.prod(
                int(kept[axes[axis]].sum()) if axis in axes else size for axis, size in enumerate(shape)
            )
            parameters += sizes[key] if stays(key[0]) else 0
        for path, weight, positions in self._products:
            macs += sizes[path, weight] * positions if stays(path) else 0
        for path, count, every in self._pairings:
            macs += count * math.prod(int(kept[ids].sum()) for ids in every) if stays(path) else 0
        return Cost(macs, parameters)


def trace(model: keras.Model, *, trust_lambda: bool = False) -> ChannelGraph:
    """Number a model's channels, couple those that go together, and pin those that must stay.

    Layers without a rule (see `register_rule`) are opaque: channels that they read or write are pinned.

    Args:
        model: Functional or sequential model, built; nested and shared models and layers are followed.
        trust_lambda: Rebuild Lambda layers, that is, run the code in their configuration.

    Raises:
        ValueError: The model is subclassed or can't be rebuilt; the message names the layer.
    """
    check(model, trust_lambda)
    return _graph(model, Tracing(model).recording)


def _signatures(recording: Recording, roots: np.ndarray) -> dict[Any, list[int]]:
    """Return the groups: coupled channels of the same producers and pins, in the order of the model."""
    reasons: dict[int, dict[str, None]] = {}
    for ids, reason in recording.pins:
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, {})[reason] = None
    makers: dict[int, dict[Path, None]] = {}
    for path, ids in recording.produced.items():
        for root in roots[ids].tolist():
            makers.setdefault(root, {})[path] = None
    signatures: dict[Any, list[int]] = {}
    for root, paths in makers.items():
        signatures.setdefault((tuple(paths), tuple(reasons.get(root, ()))), []).append(root)
    return signatures


def _graph(model: Any, recording: Recording) -> ChannelGraph:
    roots = np.array([recording.root(channel) for channel in range(len(recording.parents))], np.int64)
    signatures = _signatures(recording, roots)
    place = np.full((2, len(roots)), -1)  # group and channel of each root
    for index, members in enumerate(signatures.values()):
        place[0, members], place[1, members] = index, np.arange(len(members))
    slices = _slices(recording, roots, place, [len(members) for members in signatures.values()])
    groups = tuple(
        Group(
            index,
            "/".join(paths[0]),
            len(members),
            pins or ((ONLY_ONE,) if len(members) == 1 else ()),
            *(tuple(slices.get((index, role), ())) for role in (PRODUCER, FOLLOWER, READER)),
        )
        for index, ((paths, pins), members) in enumerate(signatures.items())
    )
    bypasses = list(find_bypasses(model, configuration(model), recording))
    bypasses = [
        replace(each, channels=(roots[each.channels[0]], roots[each.channels[1]])) for each in bypasses
    ]
    known = {path for path, _ in recording.shapes}
    return ChannelGraph(
        groups,
        tuple(each for each in bypasses if each.at not in recording.produced),
        tuple(each for each in bypasses if each.at in recording.produced),
        {
            key: {axis: roots[ids] for axis, (_, ids) in axes.items()}
            for key, axes in recording.weights.items()
        },
        {key: roots[ids] for key, ids in recording.settings.items()},
        recording.shapes,
        tuple(recording.products),
        tuple((path, count, tuple(roots[ids] for ids in every)) for path, count, every in recording.pairings),
        {
            path: Cost(recording.opaque.get(path, 0), layer.count_params())
            for path, layer in every_layer(model)
            if path not in known
        },
        place,
    )


def _slices(
    recording: Recording, roots: np.ndarray, place: np.ndarray, sizes: list[int]
) -> dict[tuple[int, str], list[Slice]]:
    """Return per group and role where the weights hold the group's channels."""
    slices: dict[tuple[int, str], list[Slice]] = {}
    for (path, weight), axes in recording.weights.items():
        for axis, (role, ids) in axes.items():
            numbers, channels = place[:, roots[ids]]
            for index in np.unique(numbers[numbers >= 0]).tolist():
                positions = np.flatnonzero(numbers == index)
                order = positions[np.argsort(channels[positions], kind="stable")]
                counts = np.bincount(channels[positions], minlength=sizes[index])
                parts = np.split(order, np.cumsum(counts)[:-1])
                slices.setdefault((index, role), []).append(Slice(path, weight, axis, tuple(parts)))
    return slices
