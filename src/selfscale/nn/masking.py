"""Masks on every filter, inside the graph: disable and freeze without a new trace (thesis 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from selfscale.nn.fcn import Block, Size, blocks, size
from selfscale.records import Filter


class ChannelMask(keras.layers.Layer):
    """Multiply every channel by its mask: 1 passes it on, 0 makes it zero whatever its input."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.active = self.add_weight((input_shape[-1],), initializer="ones", trainable=False, name="active")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.active


@dataclass(frozen=True)
class MaskState:
    """Weights and masks of a masked network, as plain arrays."""

    weights: list[np.ndarray]  # of the plain model, in the order of Keras
    active: list[np.ndarray]  # boolean, one per hidden layer of the initial network
    trainable: list[np.ndarray]  # boolean, one per block
    indices: list[np.ndarray]  # numbers of the filters, one per hidden layer that is left

    @property
    def widths(self) -> tuple[int, ...]:
        """Filters of each hidden layer of the initial network."""
        return tuple(active.size for active in self.active)

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden layers that are left; a removed one has no enabled filter."""
        return tuple(layer for layer, active in enumerate(self.active) if active.any())


class MaskedNetwork:
    """A chain of plain Keras layers, with masks on the filters of its hidden convolutions.

    `model` stays the plain model and shares its weights with `graph`, which has a mask behind each
    hidden block: behind its activation, so that a disabled filter's output is exactly zero. Filters of
    the output layer can be frozen, but not disabled.

    Layers and filters keep their numbers when others are removed: a removed filter is a disabled one, a
    removed layer one without enabled filters. The output layer's number is `len(widths)`.

    Args:
        model: Chain of layers, see `fcn.blocks`.
        widths: Filters of each hidden layer of the initial network. Defaults to those of `model`.
        layers: Numbers of the hidden layers that `model` has. Defaults to all.
        indices: For each of these, the numbers of the filters that it has. Defaults to all.
    """

    def __init__(
        self,
        model: keras.Model,
        widths: Sequence[int] | None = None,
        layers: Sequence[int] | None = None,
        indices: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.model = model
        self.blocks: list[Block] = blocks(model)
        self.widths = tuple(widths or (block.filters for block in self.blocks[:-1]))
        self.layers = tuple(range(len(self.widths)) if layers is None else layers)
        hidden = [np.arange(block.filters) for block in self.blocks[:-1]]
        self.indices = hidden if indices is None else list(indices)
        self.masks = [ChannelMask(name=f"mask_{layer}") for layer in self.layers]
        x = model.input
        self._inputs: list[keras.KerasTensor] = []
        for position, block in enumerate(self.blocks):
            self._inputs.append(x)
            for layer in block.layers:
                x = layer(x)
            if position < len(self.masks):
                x = self.masks[position](x)
        self.graph = keras.Model(model.input, x, name=f"masked_{model.name}")
        self._trainable = [np.ones(block.filters, bool) for block in self.blocks]
        # Read by the compiled step, and broadcast over the last axis of each of a block's weights.
        ones = [tf.ones(block.filters, tf.bool) for block in self.blocks]
        self._updates = [tf.Variable(mask, trainable=False) for mask in ones]

    @property
    def active(self) -> list[np.ndarray]:
        """Which filters are enabled: one boolean array per hidden layer of the initial network."""
        return self.by_filter(self.enabled()[:-1])

    @property
    def filters_kept(self) -> tuple[int, ...]:
        """Enabled filters of each hidden layer of the initial network."""
        return tuple(int(active.sum()) for active in self.active)

    def enabled(self) -> list[np.ndarray]:
        """Return which channels are enabled, one boolean array per block; the output's always are."""
        hidden = [mask.active.numpy().astype(bool) for mask in self.masks]
        return [*hidden, np.ones(self.blocks[-1].filters, bool)]

    def by_filter(self, channels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Spread values of the hidden layers' channels over the initial network's filters.

        Returns one array per hidden layer of the initial network, zero where a filter was removed.
        """
        arrays = [np.zeros(width, channels[0].dtype) for width in self.widths]
        for layer, indices, values in zip(self.layers, self.indices, channels, strict=True):
            arrays[layer][indices] = values
        return arrays

    def size(self) -> Size:
        """Return the size without the disabled filters."""
        return size(self.model, [kept for kept in self.filters_kept if kept])

    def removable(self) -> list[Filter]:
        """Return the enabled hidden filters in order, except where a layer has only one left."""
        return [
            Filter(layer, int(index))
            for layer, active in enumerate(self.active)
            if active.sum() > 1
            for index in np.flatnonzero(active)
        ]

    def filters(self, layer: int) -> list[Filter]:
        """Return the filters of a hidden or the output layer, one per channel, enabled or not."""
        output = np.arange(self.blocks[-1].filters)
        return [Filter(layer, int(index)) for index in (*self.indices, output)[self.position(layer)]]

    def position(self, layer: int) -> int:
        """Return the index in `blocks` of a hidden layer or the output layer."""
        return (*self.layers, len(self.widths)).index(layer)

    def block(self, layer: int) -> Block:
        return self.blocks[self.position(layer)]

    def channel(self, filter: Filter) -> int:
        """Return a filter's channel in its block; raises ValueError if it was removed."""
        if filter.layer == len(self.widths):
            return filter.index
        return self.indices[self.position(filter.layer)].tolist().index(filter.index)

    def features(self, layer: int) -> keras.Model:
        """Return the part of the graph, masks included, that computes a layer's input."""
        return keras.Model(self.graph.input, self._inputs[self.position(layer)])

    def filter_weights(self, layer: int) -> np.ndarray:
        """Return a layer's filters as float32 rows `(filters, n)`: kernel flattened, bias appended.

        A removed filter is a row of zeros.
        """
        if layer < len(self.widths) and layer not in self.layers:
            return np.zeros((self.widths[layer], 1), np.float32)
        convolution = self.block(layer).convolution
        kernel = convolution.kernel.numpy()
        rows = kernel.reshape(-1, kernel.shape[-1]).T
        if convolution.use_bias:
            rows = np.concatenate([rows, convolution.bias.numpy()[:, None]], axis=1)
        if layer == len(self.widths):
            return rows
        every = np.zeros((self.widths[layer], rows.shape[1]), np.float32)
        every[self.indices[self.position(layer)]] = rows
        return every

    def disable(self, *filters: Filter) -> None:
        """Disable filters: their output is zero, and they are not updated.

        Raises ValueError for one that is disabled, does not exist, or is the last one of its layer.
        """
        active = self.active
        for layer, index in filters:
            if not 0 <= layer < len(active) or not 0 <= index < active[layer].size:
                raise ValueError(f"there is no hidden filter {index} in layer {layer}")
            if not active[layer][index]:
                raise ValueError(f"{Filter(layer, index)} is disabled already")
            active[layer][index] = False
            if not active[layer].any():
                raise ValueError(f"{Filter(layer, index)} is the last one of its layer")
        self.set_masks(active)

    def set_masks(self, active: Sequence[np.ndarray]) -> None:
        """Enable or disable all filters by one boolean array per hidden layer of the initial network."""
        for layer, indices, mask in zip(self.layers, self.indices, self.masks, strict=True):
            mask.active.assign(active[layer][indices].astype(np.float32))
        self._write_updates()

    def freeze(self, *filters: Filter) -> None:
        """Stop updating filters; they still produce output."""
        self._set_trainable(filters, False)

    def unfreeze(self, *filters: Filter) -> None:
        self._set_trainable(filters, True)

    def frozen(self) -> list[Filter]:
        """Return the enabled filters that are not updated."""
        states = zip((*self.layers, len(self.widths)), self._trainable, self.enabled(), strict=True)
        return [
            filter
            for layer, trainable, active in states
            for filter, is_frozen in zip(self.filters(layer), active & ~trainable, strict=True)
            if is_frozen
        ]

    def _set_trainable(self, filters: tuple[Filter, ...], value: bool) -> None:
        for filter in filters:
            self._trainable[self.position(filter.layer)][self.channel(filter)] = value
        self._write_updates()

    def _write_updates(self) -> None:
        for update, trainable, active in zip(self._updates, self._trainable, self.enabled(), strict=True):
            update.assign(trainable & active)

    def update_masks(self) -> list[tuple[keras.Variable, tf.Variable]]:
        """Return (weight, mask over its last axis) for every weight, for use in a compiled step."""
        return [
            (variable, self._updates[position])
            for position, block in enumerate(self.blocks)
            for layer in block.layers
            for variable in layer.weights
            if variable.shape[-1:] == (block.filters,)
        ]

    def state(self) -> MaskState:
        return MaskState(
            [np.array(weight) for weight in self.model.get_weights()],
            self.active,
            [trainable.copy() for trainable in self._trainable],
            [indices.copy() for indices in self.indices],
        )

    def restore(self, state: MaskState) -> None:
        """Set weights and masks; raises ValueError if the state has other layers or filters."""
        if (state.widths, state.layers) != (self.widths, self.layers):
            raise ValueError(
                f"the state is of the layers {state.layers} of {state.widths} filters, "
                f"the network has the layers {self.layers} of {self.widths}"
            )
        if not self.has_filters_of(state):
            raise ValueError("the state is of a network from which other filters were removed")
        self.model.set_weights(state.weights)
        self._trainable = [trainable.copy() for trainable in state.trainable]
        self.set_masks(state.active)

    def has_filters_of(self, state: MaskState) -> bool:
        """Return whether the network has the filters of the state, enabled or not."""
        return all(map(np.array_equal, self.indices, state.indices))
