"""Switches on every filter, inside the graph: disable, freeze, reinitialize (thesis 2.3).

A switch is a weight of the graph, so flipping one rebuilds and retraces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from selfscale.network import Block, Size, blocks, size
from selfscale.records import Filter


class FilterSwitch(keras.layers.Layer):
    """Multiplies every channel by its switch: 1 lets it through, 0 makes it zero whatever its input."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.active = self.add_weight(
            shape=(input_shape[-1],), initializer="ones", trainable=False, name="active"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.active


@dataclass(frozen=True)
class SwitchState:
    """Everything that distinguishes one state of a switched network from another: plain arrays.

    `active` has an entry per hidden layer of the initial network, `trainable` one per block.
    """

    weights: list[np.ndarray]
    active: list[np.ndarray]
    trainable: list[np.ndarray]

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden layers that are still there: a removed one has no filter that is on."""
        return tuple(layer for layer, active in enumerate(self.active) if active.any())


class SwitchedNetwork:
    """Any chain of plain Keras layers, with switches on the filters of its hidden convolutions.

    `model` stays the plain model and shares its weights with `graph`, which has a switch behind
    each hidden block (behind its activation: so what a disabled filter hands on is exactly zero).
    Filters of the output layer can be frozen, but not disabled.

    Layers keep their numbers when others are removed: `widths` are the filters of every hidden
    layer of the initial network, `layers` the numbers of those that `model` still has. A removed
    layer is one whose filters are all off.
    """

    def __init__(
        self, model: keras.Model, widths: Sequence[int] | None = None, layers: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.blocks: list[Block] = blocks(model)
        self.widths = tuple(widths or (block.filters for block in self.blocks[:-1]))
        self.layers = tuple(range(len(self.widths)) if layers is None else layers)
        self.switches = [FilterSwitch(name=f"switch_{layer}") for layer in self.layers]
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
        arrays = [np.zeros(width, bool) for width in self.widths]
        for layer, switch in zip(self.layers, self.switches, strict=True):
            arrays[layer] = switch.active.numpy().astype(bool)
        return arrays

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

        Those of a removed layer are zeros.
        """
        if layer < len(self.widths) and layer not in self.layers:
            return np.zeros((self.widths[layer], 1), np.float32)
        convolution = self.block(layer).convolution
        kernel = convolution.kernel.numpy()
        rows = kernel.reshape(-1, kernel.shape[-1]).T
        if convolution.use_bias:
            rows = np.concatenate([rows, convolution.bias.numpy()[:, None]], axis=1)
        return rows

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
        for layer, switch in zip(self.layers, self.switches, strict=True):
            switch.active.assign(active[layer].astype(np.float32))
        self._write_updates()

    def freeze(self, *filters: Filter) -> None:
        """Keep filters as they are: they go on working but are not updated."""
        self._set_trainable(filters, False)

    def unfreeze(self, *filters: Filter) -> None:
        self._set_trainable(filters, True)

    def frozen(self) -> list[Filter]:
        """Filters that are not updated although they are enabled."""
        return [
            Filter(layer, int(index))
            for layer, trainable, active in zip(
                (*self.layers, len(self.widths)), self._trainable, self._enabled(), strict=True
            )
            for index in np.flatnonzero(active & ~trainable)
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
            value = variable.numpy()
            value[..., filter.index] = fresh[..., filter.index]
            variable.assign(value)

    def _set_trainable(self, filters: tuple[Filter, ...], value: bool) -> None:
        for layer, index in filters:
            self._trainable[self.position(layer)][index] = value
        self._write_updates()

    def _enabled(self) -> list[np.ndarray]:
        """The switches of each block's filters; those of the output layer are always on."""
        active = self.active
        return [*(active[layer] for layer in self.layers), np.ones(self.blocks[-1].filters, bool)]

    def _write_updates(self) -> None:
        for update, trainable, active in zip(self._updates, self._trainable, self._enabled(), strict=True):
            update.assign(trainable & active)

    def copy_switches(self, other: SwitchedNetwork) -> None:
        """Set the switches of each layer as they are in another network that has the layer, too."""
        active = other.active
        for layer, switch in zip(self.layers, self.switches, strict=True):
            switch.active.assign(active[layer].astype(np.float32))
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

    def state(self) -> SwitchState:
        return SwitchState(
            [np.array(weight) for weight in self.model.get_weights()],
            [active.copy() for active in self.active],
            [trainable.copy() for trainable in self._trainable],
        )

    def restore(self, state: SwitchState) -> None:
        """Raises ValueError if the state is of a network of another shape or with other layers."""
        widths = tuple(active.size for active in state.active)
        if (widths, state.layers) != (self.widths, self.layers):
            raise ValueError(
                f"the state is of the layers {state.layers} of {widths} filters, "
                f"the network has the layers {self.layers} of {self.widths}"
            )
        self.model.set_weights(state.weights)
        for layer, switch in zip(self.layers, self.switches, strict=True):
            switch.active.assign(state.active[layer].astype(np.float32))
        self._trainable = [trainable.copy() for trainable in state.trainable]
        self._write_updates()
