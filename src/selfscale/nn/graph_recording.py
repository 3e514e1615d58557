"""What the rules of layers record: numbered channels, which are coupled, and where weights hold them."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

Path = tuple[str, ...]  # names of the layer and of the nested models that it lies in, outermost first
PRODUCER, FOLLOWER, READER = "producer", "follower", "reader"


@dataclass(frozen=True, eq=False)
class Tensor:
    """A symbolic tensor, with the numbers of the channels along its last axis.

    `ids` is None where there is no such axis of known size, and may name a channel several times.
    """

    shape: tuple[int | None, ...]
    dtype: str
    ids: np.ndarray | None


class OpaqueError(Exception):
    """A rule does not know what a layer does to its channels here; the message says why."""


@dataclass
class Recording:
    """Channels by number, coupled by a union-find, and where the weights and configurations hold them."""

    parents: list[int] = field(default_factory=list)
    pins: list[tuple[np.ndarray, str]] = field(default_factory=list)
    # (layer, weight) -> axis -> (role, ids)
    weights: dict[tuple[Path, str], dict[int, tuple[str, np.ndarray]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    shapes: dict[tuple[Path, str], tuple[int, ...]] = field(default_factory=dict)
    # (layer, keys into its configuration) -> channels whose number stands there
    settings: dict[tuple[Path, tuple[str | int, ...]], np.ndarray] = field(default_factory=dict)
    produced: dict[Path, np.ndarray] = field(default_factory=dict)
    # (layer, weight, positions): as many multiply-accumulates as the weight has entries, per position
    products: list[tuple[Path, str, int]] = field(default_factory=list)
    # (layer, count, channels): so many for each combination of these channels, without a weight
    pairings: list[tuple[Path, int, tuple[np.ndarray, ...]]] = field(default_factory=list)
    opaque: dict[Path, int] = field(default_factory=dict)  # multiply-accumulates, estimated
    # per layer with a rule and use: what enters and leaves it
    passed: dict[Path, list[tuple[list[Tensor], Tensor]]] = field(default_factory=dict)

    def fresh(self, count: int) -> np.ndarray:
        """Return the numbers of `count` new channels."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, channel: int) -> int:
        parents = self.parents
        while parents[channel] != channel:
            parents[channel] = parents[parents[channel]]
            channel = parents[channel]
        return channel

    def couple(self, first: np.ndarray, second: np.ndarray) -> None:
        """Couple channels one by one: they are removed together."""
        if first is second:
            return
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def pin(self, ids: np.ndarray | None, reason: str) -> None:
        if ids is not None:
            self.pins.append((ids, reason))

    def axis(self, path: Path, weight: str, axis: int, role: str, ids: np.ndarray) -> None:
        axes = self.weights[path, weight]
        if axis in axes:
            self.couple(axes[axis][1], ids)
        else:
            axes[axis] = (role, ids)

    def setting(self, path: Path, keys: tuple[str | int, ...], ids: np.ndarray) -> None:
        if (path, keys) in self.settings:
            self.couple(self.settings[path, keys], ids)
        else:
            self.settings[path, keys] = ids


@dataclass
class Use:
    """One use of a layer or operation: what a rule reads, and how it says what happens to channels.

    A rule returns the channels of the output, an array of numbers, usually those of an input. It checks
    first and records afterwards, and raises `OpaqueError` where it is not sure.

    Attributes:
        layer: The `keras.layers.Layer` or, for `keras.ops`, the operation.
        inputs: All tensors among the arguments, in order.
        output: Shape and type of the first output, without channels.
        arguments: Positional and keyword arguments as they were given, with `Tensor` for tensors.
        inner: Where the layer lies in the one at `path`: its attribute, and its place in the configuration.
        times: How often it is called in one use of that one.
    """

    path: Path
    layer: Any
    config: dict[str, Any]
    inputs: list[Tensor]
    output: Tensor
    arguments: tuple[list[Any], dict[str, Any]]
    recording: Recording
    inner: tuple[str, tuple[str, ...]] = ("", ())
    times: int = 1

    @property
    def ids(self) -> np.ndarray:
        """Channels of the only input."""
        if len(self.inputs) != 1:
            raise OpaqueError("it has several inputs")
        return self.channels(self.inputs[0])

    def channels(self, tensor: Tensor) -> np.ndarray:
        if tensor.ids is None:
            raise OpaqueError("an input has no channel axis of known size")
        return tensor.ids

    def read(self, weight: str, axis: int, ids: np.ndarray) -> None:
        """Say that a weight mixes channels: zeros there are the same as removing the channels."""
        self._axis(weight, axis, READER, ids)

    def follow(self, weight: str, axis: int, ids: np.ndarray) -> None:
        """Say that a weight has one entry per channel, and mixes none."""
        self._axis(weight, axis, FOLLOWER, ids)

    def leave(self, weight: str) -> None:
        """Say that a weight holds no channels."""
        self.recording.shapes[self.path, self.inner[0] + weight] = tuple(weight_of(self.layer, weight).shape)

    def produce(self, count: int, **axes: int) -> np.ndarray:
        """Say that the layer computes `count` new channels, by the given axes of these weights."""
        if self.path not in self.recording.produced:
            self.recording.produced[self.path] = self.recording.fresh(count)
        ids = self.recording.produced[self.path]
        for weight, axis in axes.items():
            self.compute(weight, axis, ids)
        return ids

    def compute(self, weight: str, axis: int, ids: np.ndarray) -> None:
        """Say that a weight computes channels of the layer, by entries along an axis."""
        self._axis(weight, axis, PRODUCER, ids)

    def inside(self, name: str, count: int) -> np.ndarray:
        """Say that the layer computes `count` channels that it reads itself."""
        produced, key = self.recording.produced, (*self.path, name)
        if key not in produced:
            produced[key] = self.recording.fresh(count)
        return produced[key]

    def count(self, key: str, ids: np.ndarray, *index: int) -> None:
        """Say that the configuration holds the number of these channels under a key (and index)."""
        self.recording.setting(self.path, (*self.inner[1], key, *index), ids)

    def multiply(self, weight: str, positions: Sequence[int | None]) -> None:
        """Say that each of so many positions takes a multiply-accumulate per entry of the weight."""
        size = math.prod(each or 1 for each in positions) * self.times
        self.recording.products.append((self.path, self.inner[0] + weight, size))

    def pair(self, count: int, *ids: np.ndarray) -> None:
        """Say that each combination of these channels takes so many multiply-accumulates."""
        self.recording.pairings.append((self.path, count, ids))

    def couple_all(self, ids: np.ndarray) -> np.ndarray:
        """Couple rows `(n, channels)` with the first row, and return that."""
        for row in ids[1:]:
            self.recording.couple(ids[0], row)
        return ids[0]

    def _axis(self, weight: str, axis: int, role: str, ids: np.ndarray) -> None:
        variable = weight_of(self.layer, weight)
        if variable is None:  # use_bias=False, center=False
            return
        shape = tuple(variable.shape)
        if shape[axis] != len(ids):
            raise OpaqueError(f"its {weight} of shape {shape} does not fit {len(ids)} channels")
        weight = self.inner[0] + weight
        self.recording.shapes[self.path, weight] = shape
        self.recording.axis(self.path, weight, axis % len(shape), role, ids)


def weight_of(layer: Any, name: str) -> Any:
    """Return a layer's weight, also of a layer in it (`query_dense.kernel`); None if there is none."""
    return functools.reduce(lambda thing, part: getattr(thing, part, None), name.split("."), layer)


Rule = Callable[[Use], np.ndarray]
RULES: dict[type, Rule] = {}
BY_KEYWORD = {
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
}  # whose rules look at tensors that are given by keyword


def register_rule(*layers: type) -> Callable[[Rule], Rule]:
    """Register a rule that says what layers of exactly these classes do to channels.

    ```python
    @selfscale.register_rule(Scale)  # one weight `factor` per channel
    def scale(use):
        use.follow("factor", 0, use.ids)
        return use.ids
    ```

    Without a rule a layer is opaque: all channels that it reads and writes stay.
    """
    for layer in layers:
        if not (isinstance(layer, type) and issubclass(layer, keras.layers.Layer)):
            raise ValueError(f"register_rule: {layer!r} is not a class of Keras layers")

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(layers, rule))
        return rule

    return register
