"""Switches on every filter, inside the graph: disable, freeze, reinitialize (thesis 2.3).

A switch is a weight of the graph, so flipping one rebuilds and retraces nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from selfscale.network import Block, blocks
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
    """Everything that distinguishes one state of a switched network from another: plain arrays."""

    weights: list[np.ndarray]
    active: list[np.ndarray]
    trainable: list[np.ndarray]


class SwitchedNetwork:
    """Any chain of plain Keras layers, with switches on the filters of its hidden convolutions.

    `model` stays the plain model and shares its weights with `graph`, which has a switch behind
    each hidden block (behind its activation: so what a disabled filter hands on is exactly zero).
    Filters of the output layer can be frozen, but not disabled.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.blocks: list[Block] = blocks(model)
        self.switches = [FilterSwitch(name=f"switch_{layer}") for layer in range(len(self.blocks) - 1)]
        x = model.input
        for position, block in enumerate(self.blocks):
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
        """One boolean array per hidden layer: which filters are enabled."""
        return [switch.active.numpy().astype(bool) for switch in self.switches]

    @property
    def filters_kept(self) -> tuple[int, ...]:
        return tuple(int(active.sum()) for active in self.active)

    def removable(self) -> list[Filter]:
        """Enabled hidden filters in order, except where a layer has only one left."""
        return [
            Filter(layer, int(index))
            for layer, active in enumerate(self.active)
            if active.sum() > 1
            for index in np.flatnonzero(active)
        ]

    def filter_weights(self, layer: int) -> np.ndarray:
        """The filters of a convolution as rows: kernel flattened, bias appended; float32 (filters, n)."""
        convolution = self.blocks[layer].convolution
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
        for switch, mask in zip(self.switches, active, strict=True):
            switch.active.assign(mask.astype(np.float32))
        self._write_updates()

    def freeze(self, *filters: Filter) -> None:
        """Keep filters as they are: they go on working but are not updated."""
        self._set_trainable(filters, False)

    def unfreeze(self, *filters: Filter) -> None:
        self._set_trainable(filters, True)

    def reinitialize(self, filter: Filter, rng: np.random.Generator) -> None:
        """Draw a filter anew by its layer's own initializers (kernel and bias)."""
        convolution = self.blocks[filter.layer].convolution
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
            self._trainable[layer][index] = value
        self._write_updates()

    def _write_updates(self) -> None:
        for layer, update in enumerate(self._updates):
            active = self.active[layer] if layer < len(self.switches) else True
            update.assign(self._trainable[layer] & active)

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
        self.model.set_weights(state.weights)
        for switch, active in zip(self.switches, state.active, strict=True):
            switch.active.assign(active.astype(np.float32))
        self._trainable = [trainable.copy() for trainable in state.trainable]
        self._write_updates()
