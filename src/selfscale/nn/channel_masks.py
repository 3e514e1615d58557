"""Masks on the channels of any model's groups, in its weights: disable and freeze without a new trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from selfscale.nn.graph import ChannelGraph, Group, Slice
from selfscale.nn.graph_recording import weight_of
from selfscale.nn.graph_walk import every_layer

Channels = Iterable[int]


@dataclass(frozen=True)
class ChannelState:
    """Weights and masks of a model, as plain arrays."""

    weights: list[np.ndarray]
    enabled: dict[int, np.ndarray]
    frozen: dict[int, np.ndarray]


class ChannelMasks:
    """Masks on the channels of a model, which stays the same plain model.

    A channel is disabled by zeros in all weights that read it, so that it has no effect, whatever lies
    between; nothing that computes it is updated any more. Call `apply` instead of the optimizer's own.

    Attributes:
        enabled, frozen: One boolean array per group.

    Args:
        model: Model that `graph` was traced from.
        graph: Its channels.
    """

    def __init__(self, model: keras.Model, graph: ChannelGraph) -> None:
        self.model, self.graph = model, graph
        self._layers = dict(every_layer(model))
        self.enabled = {group.index: np.ones(group.size, bool) for group in graph.groups}
        self.frozen = {group.index: np.zeros(group.size, bool) for group in graph.groups}
        # Of each weight with channels: which entries are updated, and what the others are held at.
        self._updated: dict[int, tf.Variable] = {}
        self._held: dict[int, tf.Variable] = {}
        self._weights: dict[int, Any] = {}
        for path, name in graph.weights:
            weight = weight_of(self._layers[path], name)
            key = id(weight)
            self._weights[key] = weight
            self._updated[key] = tf.Variable(tf.ones(weight.shape, tf.bool), trainable=False)
            self._held[key] = tf.Variable(weight.value, trainable=False)

    @property
    def keep(self) -> Mapping[int, np.ndarray]:
        """Masks of the groups with disabled channels, for `rewrite` and `ChannelGraph.cost`."""
        return {index: mask.copy() for index, mask in self.enabled.items() if not mask.all()}

    def disable(self, group: int, channels: Channels) -> None:
        """Disable channels: nothing reads them, and they are not updated.

        Raises:
            ValueError: The group is pinned, or it would be empty.
        """
        mask = self.enabled[group].copy()
        mask[list(channels)] = False
        self.graph.kept({group: mask})
        self.enabled[group] = mask
        self.hold([group])

    def freeze(self, group: int, channels: Channels) -> None:
        """Stop updating what computes channels; they still have their effect."""
        self.frozen[group][list(channels)] = True
        self.hold([group])

    def unfreeze(self, group: int, channels: Channels) -> None:
        self.frozen[group][list(channels)] = False
        self.hold([group])

    def reinitialize(self, group: int, channels: Channels, rng: np.random.Generator) -> None:
        """Redraw what computes channels, by the layers' own initializers; removes nothing."""
        channels = list(channels)
        for part in self.graph.groups[group].producers:
            weight, index = self.weight(part), entries(part, channels)
            value = keras.ops.convert_to_numpy(weight).copy()
            drawn = initial(self._layers[part.layer], part.weight, rng)
            np.moveaxis(value, part.axis, 0)[index] = np.moveaxis(drawn, part.axis, 0)[index]
            weight.assign(value)
        self.hold([group])

    def weight(self, part: Slice) -> Any:
        return weight_of(self._layers[part.layer], part.weight)

    def mask_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Zero what is not updated in the gradients of `model.trainable_variables`; for compiled steps."""
        masked = []
        for weight, gradient in zip(self.model.trainable_variables, gradients, strict=True):
            updated = self._updated.get(id(weight))
            if gradient is not None and updated is not None:
                dense = tf.convert_to_tensor(gradient)
                gradient = tf.where(updated, dense, tf.zeros_like(dense))
            masked.append(gradient)
        return masked

    def enforce(self) -> None:
        """Put back what momentum, weight decay or a constraint moved; for compiled steps."""
        for key, weight in self._weights.items():
            weight.assign(tf.where(self._updated[key], weight.value, self._held[key]))

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any]) -> None:
        """Update the model by an optimizer; what is disabled or frozen counts in no clipped norm."""
        optimizer.apply(self.mask_gradients(gradients), self.model.trainable_variables)
        self.enforce()

    def state(self) -> ChannelState:
        return ChannelState(
            [np.array(weight) for weight in self.model.get_weights()],
            {index: mask.copy() for index, mask in self.enabled.items()},
            {index: mask.copy() for index, mask in self.frozen.items()},
        )

    def restore(self, state: ChannelState) -> None:
        """Set weights and masks."""
        self.model.set_weights(state.weights)
        self.enabled = {index: mask.copy() for index, mask in state.enabled.items()}
        self.frozen = {index: mask.copy() for index, mask in state.frozen.items()}
        self.hold()

    def hold(self, groups: Iterable[int] | None = None) -> None:
        """Zero what reads disabled channels, and hold what is not updated at its weights of now.

        To be called for all groups, the default, after weights were set in another way.
        """
        groups = range(len(self.graph.groups)) if groups is None else groups
        changed = {id(self.weight(part)) for index in groups for part in parts(self.graph.groups[index])}
        values = {key: keras.ops.convert_to_numpy(self._weights[key]).copy() for key in changed}
        updated = {key: np.ones(value.shape, bool) for key, value in values.items()}
        for group in self.graph.groups:
            disabled = np.flatnonzero(~self.enabled[group.index]).tolist()
            still = np.flatnonzero(~self.enabled[group.index] | self.frozen[group.index]).tolist()
            for part in (*group.producers, *group.followers):
                key = id(self.weight(part))
                if still and key in changed:
                    np.moveaxis(updated[key], part.axis, 0)[entries(part, still)] = False
            for part in group.readers:
                key = id(self.weight(part))
                if disabled and key in changed:
                    np.moveaxis(updated[key], part.axis, 0)[entries(part, disabled)] = False
                    np.moveaxis(values[key], part.axis, 0)[entries(part, disabled)] = 0
        for key in changed:
            self._weights[key].assign(values[key])
            self._held[key].assign(values[key])
            self._updated[key].assign(updated[key])


def parts(group: Group) -> tuple[Slice, ...]:
    """Return all places of a group's channels."""
    return (*group.producers, *group.followers, *group.readers)


def entries(part: Slice, channels: Sequence[int]) -> np.ndarray:
    """Return the entries along the axis of these channels."""
    return np.concatenate([part.indices[channel] for channel in channels])


def initial(layer: Any, weight: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a weight anew, by its layer's initializer."""
    shape = tuple(weight_of(layer, weight).shape)
    owner, _, name = weight.rpartition(".")
    layer, stem = weight_of(layer, owner) if owner else layer, name.removesuffix("_kernel")
    initializer = getattr(layer, f"{stem}_initializer", None) or getattr(layer, "depthwise_initializer", None)
    if initializer is None:
        initializer = keras.initializers.GlorotUniform() if len(shape) > 1 else keras.initializers.Zeros()
    config = initializer.get_config()
    if "seed" in config:
        config["seed"] = int(rng.integers(2**31))
    return np.asarray(keras.ops.convert_to_numpy(type(initializer).from_config(config)(shape)))
