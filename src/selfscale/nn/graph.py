"""The channels of any functional or sequential Keras model: which go together, and which must stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from selfscale.nn.graph_recording import FOLLOWER, PRODUCER, READER, Path, Recording
from selfscale.nn.graph_walk import Walk, every_layer, is_graph

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
    """The groups of a model's channels, from `trace`."""

    groups: tuple[Group, ...]
    weights: Mapping[tuple[Path, str], Mapping[int, np.ndarray]]  # (layer, weight) -> axis -> channels
    settings: Mapping[tuple[Path, tuple[str | int, ...]], np.ndarray]
    _shapes: Mapping[tuple[Path, str], tuple[int, ...]] = field(repr=False)
    _products: tuple[tuple[Path, str, int], ...] = field(repr=False)
    _fixed: Cost = field(repr=False)
    _members: tuple[np.ndarray, ...] = field(repr=False)  # per group, the numbers of its channels
    _channels: int = field(repr=False)

    def kept(self, keep: Keep) -> np.ndarray:
        """Return which of the numbered channels are kept.

        Raises:
            ValueError: A mask has the wrong length, empties a group, or removes pinned channels.
        """
        kept = np.ones(self._channels, bool)
        for index, mask in keep.items():
            group, mask = self.groups[index], np.asarray(mask, bool)
            if mask.shape != (group.size,):
                raise ValueError(f"group {index} ({group.name}) has {group.size} channels, not {mask.shape}")
            if not mask.any():
                raise ValueError(f"group {index} ({group.name}) must keep one channel")
            if not mask.all() and group.pins:
                raise ValueError(f"group {index} ({group.name}) is pinned: {group.pins[0]}")
            kept[self._members[index]] = mask
        return kept

    def cost(self, keep: Keep | None = None) -> Cost:
        """Return the cost of the model without the channels that are masked, by arithmetic alone."""
        kept = self.kept(keep or {})
        sizes = {}
        parameters = self._fixed.parameters
        for key, shape in self._shapes.items():
            axes = self.weights.get(key, {})
            sizes[key] = math.prod(
                int(kept[axes[axis]].sum()) if axis in axes else size for axis, size in enumerate(shape)
            )
            parameters += sizes[key]
        macs = sum(sizes[path, weight] * positions for path, weight, positions in self._products)
        return Cost(self._fixed.macs + macs, parameters)


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
    walk = Walk(model)
    return _graph(model, walk.recording)


def check(model: Any, trust_lambda: bool) -> None:
    """Raise ValueError, of one line, if a model can't be traced and rebuilt."""
    if keras.config.backend() != "tensorflow":
        raise ValueError(f"Keras runs on {keras.config.backend()}: set KERAS_BACKEND=tensorflow")
    name = getattr(model, "name", type(model).__name__)
    if not is_graph(model):
        raise ValueError(
            f"{name} is a subclassed model, whose layers are no graph: build it as a functional model, "
            "keras.Model(inputs, outputs)"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(f"{name} is not built yet: let it begin with keras.Input(shape)")
    for path, layer in every_layer(model):
        place = "/".join(path)
        if isinstance(layer, keras.layers.Lambda):
            if not trust_lambda:
                raise ValueError(f"{place} is a Lambda: trust_lambda=True, if its code may be run")
            continue
        try:
            config = layer.get_config()
            if type(layer).__module__.partition(".")[0] != "keras":
                type(layer).from_config(config)
        except Exception as error:  # whatever a layer of someone's raises
            line = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{place} ({type(layer).__name__}) can't be rebuilt from its configuration: {line}"
            ) from error
        if config.get("data_format") == "channels_first":
            raise ValueError(f"{place} has data_format='channels_first': only 'channels_last' is supported")


def _graph(model: Any, recording: Recording) -> ChannelGraph:
    roots = np.array([recording.root(channel) for channel in range(len(recording.parents))], np.int64)
    reasons: dict[int, dict[str, None]] = {}
    for ids, reason in recording.pins:
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, {})[reason] = None
    # Channels of the same producers and pins are a group, in the order of their first producer.
    makers: dict[int, dict[Path, None]] = {}
    for path, ids in recording.produced.items():
        for root in roots[ids].tolist():
            makers.setdefault(root, {})[path] = None
    signatures: dict[Any, list[int]] = {}
    for root, paths in makers.items():
        signatures.setdefault((tuple(paths), tuple(reasons.get(root, ()))), []).append(root)
    place = np.full((2, len(roots)), -1)  # group and channel of each root
    for index, members in enumerate(signatures.values()):
        place[0, members], place[1, members] = index, np.arange(len(members))
    slices = _slices(recording, roots, place, [len(members) for members in signatures.values()])
    groups = tuple(
        Group(
            index,
            "/".join(paths[0]),
            len(members),
            pins or (("it has one channel only",) if len(members) == 1 else ()),
            *(tuple(slices.get((index, role), ())) for role in (PRODUCER, FOLLOWER, READER)),
        )
        for index, ((paths, pins), members) in enumerate(signatures.items())
    )
    known = sum(math.prod(shape) for shape in recording.shapes.values())
    return ChannelGraph(
        groups,
        {
            key: {axis: roots[ids] for axis, (_, ids) in axes.items()}
            for key, axes in recording.weights.items()
        },
        {key: roots[ids] for key, ids in recording.settings.items()},
        recording.shapes,
        tuple(recording.products),
        Cost(recording.fixed_products, model.count_params() - known),
        tuple(np.array(members) for members in signatures.values()),
        len(roots),
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
