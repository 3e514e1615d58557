"""Switches on every filter, inside the graph: disable, freeze, reinitialize (thesis 2.3).

A switch is a weight of the graph, so flipping one rebuilds and retraces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from selfscale.nn.fcn import Block, Size, blocks, size
from selfscale.records import Filter


class ChannelMask(keras.layers.Layer):
    """Multiplies every channel by its switch: 1 lets it through, 0 makes it zero whatever its input."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.active = self.add_weight(
            shape=(input_shape[-1],), initializer="ones", trainable=False, name="active"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.active


@dataclass(frozen=True)
class MaskState:
    """Everything that distinguishes one state of a switched network from another: plain arrays.

    `active` has an entry per hidden layer of the initial network, `trainable` one per block, and
    `indices` one per hidden layer that is there.
    """

    weights: list[np.ndarray]
    active: list[np.ndarray]
    trainable: list[np.ndarray]
    indices: list[np.ndarray]

    @property
    def widths(self) -> tuple[int, ...]:
        """The filters of every hidden layer of the initial network."""
        return tuple(active.size for active in self.active)

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden layers that are still there: a removed one has no filter that is on."""
        return tuple(layer for layer, active in enumerate(self.active) if active.any())


class MaskedNetwork:
    """Any chain of plain Keras layers, with switches on the filters of its hidden convolutions.

    `model` stays the plain model and shares its weights with `graph`, which has a switch behind
    each hidden block (behind its activation: so what a disabled filter hands on is exactly zero).
    Filters of the output layer can be frozen, but not disabled.

    Layers and filters keep their numbers when others are removed: `widths` are the filters of every
    hidden layer of the initial network, `layers` the numbers of those that `model` still has, and
    `indices`, for each of these, the numbers of the filters that it has. A removed layer is one whose
    filters are all off, a removed filter one that is off.
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
        self.switches = [ChannelMask(name=f"switch_{layer}") for layer in self.layers]
        x = model.input
        self._inputs: list[keras.KerasTensor] = []
        for position, block in enumerate(self.blocks):
            self._inputs.append(x)
            for layer in block.layers:
                x = layer(x)
            if position < len(self.switches):
                x = self.switches[position](x)
        self.graph = keras.Model(model.input, x, name=f"switched_{model.name}")
        # One update mask per block, broadcast over the last axis of each of the block's weights.
        self._trainable = [np.ones(block.filters, bool) for block in self.blocks]
        self._updates = [
            tf.Variable(tf.ones(block.filters, tf.bool), trainable=False) for block in self.blocks
        ]

    # -- what there is ---------------------------------------------------------------------------

    @property
    def active(self) -> list[np.ndarray]:
        """One boolean array per hidden layer of the initial network: which filters are enabled."""
        return self.by_filter([switch.active.numpy().astype(bool) for switch in self.switches])

    def by_filter(self, channels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is known of the channels of each hidden layer, by the numbers of layers and filters.

        One array per hidden layer of the initial network, with zeros for what was removed.
        """
        arrays = [np.zeros(width, channels[0].dtype) for width in self.widths]
        for layer, indices, values in zip(self.layers, self.indices, channels, strict=True):
            arrays[layer][indices] = values
        return arrays

    def enabled(self) -> list[np.ndarray]:
        """One boolean array per block: which of its channels are on. Those of the output always are."""
        switched = [switch.active.numpy().astype(bool) for switch in self.switches]
        return [*switched, np.ones(self.blocks[-1].filters, bool)]

    def channel(self, filter: Filter) -> int:
        """The channel of its block in which a filter is; raises ValueError if it was removed."""
        if filter.layer == len(self.widths):
            return filter.index
        return self.indices[self.position(filter.layer)].tolist().index(filter.index)

    @property
    def filters_kept(self) -> tuple[int, ...]:
        return tuple(int(active.sum()) for active in self.active)

    def size(self) -> Size:
        """What is left without the disabled filters."""
        return size(self.model, [kept for kept in self.filters_kept if kept])

    def removable(self) -> list[Filter]:
        """Enabled hidden filters in order, except where a layer has only one left."""
        return [
            Filter(layer, int(index))
            for layer, active in enumerate(self.active)
            if active.sum() > 1
            for index in np.flatnonzero(active)
        ]

    def filters(self, layer: int) -> list[Filter]:
        """The filters of a hidden layer, or of the output layer, one per channel, on or off."""
        output = np.arange(self.blocks[-1].filters)
        return [Filter(layer, int(index)) for index in (*self.indices, output)[self.position(layer)]]

    def block(self, layer: int) -> Block:
        """The block of a hidden layer, or, with the number behind the last one, of the output layer."""
        return self.blocks[self.position(layer)]

    def features(self, layer: int) -> keras.Model:
        """The part of the graph that makes what a layer reads, with the switches before it."""
        return keras.Model(self.graph.input, self._inputs[self.position(layer)])

    def position(self, layer: int) -> int:
        """The index in `blocks` of a hidden layer, or of the output layer by the number behind the last."""
        return (*self.layers, len(self.widths)).index(layer)

    def filter_weights(self, layer: int) -> np.ndarray:
        """The filters of a convolution as rows: kernel flattened, bias appended; float32 (filters, n).

        What was removed is zeros.
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

    # -- the switches ----------------------------------------------------------------------------

    def disable(self, *filters: Filter) -> None:
        """Switch filters off: their output is zero and they learn nothing.

        Raises:
            ValueError: a filter is off already, does not exist, or is the last one of its layer.
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

    def freeze(self, *filters: Filter) -> None:
        """Keep filters as they are: they go on working but are not updated."""
        self._set_trainable(filters, False)

    def unfreeze(self, *filters: Filter) -> None:
        self._set_trainable(filters, True)

    def frozen(self) -> list[Filter]:
        """Filters that are not updated although they are enabled."""
        states = zip((*self.layers, len(self.widths)), self._trainable, self.enabled(), strict=True)
        return [
            filter
            for layer, trainable, active in states
            for filter, is_frozen in zip(self.filters(layer), active & ~trainable, strict=True)
            if is_frozen
        ]

    def reinitialize(self, filter: Filter, rng: np.random.Generator) -> None:
        """Draw a filter anew by its layer's own initializers (kernel and bias)."""
        convolution = self.block(filter.layer).convolution
        pairs = [(convolution.kernel, convolution.kernel_initializer)]
        if convolution.use_bias:
            pairs.append((convolution.bias, convolution.bias_initializer))
        for variable, initializer in pairs:
            config = initializer.get_config()
            if "seed" in config:
                config["seed"] = int(rng.integers(2**31))
            fresh = np.asarray(type(initializer).from_config(config)(variable.shape))
            value, channel = variable.numpy(), self.channel(filter)
            value[..., channel] = fresh[..., channel]
            variable.assign(value)

    def _set_trainable(self, filters: tuple[Filter, ...], value: bool) -> None:
        for filter in filters:
            self._trainable[self.position(filter.layer)][self.channel(filter)] = value
        self._write_updates()

    def _write_updates(self) -> None:
        for update, trainable, active in zip(self._updates, self._trainable, self.enabled(), strict=True):
            update.assign(trainable & active)

    def set_masks(self, active: Sequence[np.ndarray]) -> None:
        """Switch all filters on or off, by one boolean array per hidden layer of the initial network."""
        for layer, indices, switch in zip(self.layers, self.indices, self.switches, strict=True):
            switch.active.assign(active[layer][indices].astype(np.float32))
        self._write_updates()

    # -- used inside the compiled training step --------------------------------------------------

    def update_masks(self) -> list[tuple[keras.Variable, tf.Variable]]:
        """(weight, mask over its last axis) for every weight of the chain, trainable or not."""
        return [
            (variable, self._updates[position])
            for position, block in enumerate(self.blocks)
            for layer in block.layers
            for variable in layer.weights
            if variable.shape[-1:] == (block.filters,)
        ]

    # -- states ----------------------------------------------------------------------------------

    def state(self) -> MaskState:
        return MaskState(
            [np.array(weight) for weight in self.model.get_weights()],
            [active.copy() for active in self.active],
            [trainable.copy() for trainable in self._trainable],
            [indices.copy() for indices in self.indices],
        )

    def restore(self, state: MaskState) -> None:
        """Raises ValueError if the state is of a network of another shape or with other layers."""
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
        """Whether the filters that are there, on or off, are those of the state."""
        return all(map(np.array_equal, self.indices, state.indices))
