"""The chain of convolutions whose filters are disabled and frozen, without a new trace (thesis 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from selfscale.decisions import Filter
from selfscale.nn.channel_masks import ChannelMasks, ChannelState
from selfscale.nn.fcn import Block, Size, blocks, size
from selfscale.nn.graph import trace


@dataclass(frozen=True)
class MaskState:
    """Weights and masks of a masked network, as plain arrays."""

    weights: list[np.ndarray]  # of the model, in the order of Keras; what reads a disabled filter is zero
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

    They are those of `masks`, whose groups are the blocks: nothing reads a disabled filter. Filters of the
    output layer can be frozen, but not disabled.

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
        self.masks = ChannelMasks(model, trace(model, trust_lambda=True))

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
        return [self.masks.enabled[position].copy() for position in range(len(self.blocks))]

    def reads(self, layer: int) -> np.ndarray:
        """Return which of the channels that a layer reads are enabled, boolean."""
        position = self.position(layer)
        return self.enabled()[position - 1] if position else np.ones(self.model.input_shape[-1], bool)

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

    def hidden(self) -> list[Filter]:
        """Return the enabled hidden filters in order."""
        return [
            Filter(layer, int(index))
            for layer, active in enumerate(self.active)
            for index in np.flatnonzero(active)
        ]

    def removable(self) -> list[Filter]:
        """Return the enabled hidden filters in order, except where a layer has only one left or is pinned."""
        kept, groups = self.filters_kept, self.masks.graph.groups
        return [
            filter
            for filter in self.hidden()
            if kept[filter.layer] > 1 and groups[self.position(filter.layer)].removable
        ]

    def disabled(self) -> list[Filter]:
        """Return the disabled filters that the model still has."""
        return [
            filter
            for layer, enabled in zip(self.layers, self.enabled(), strict=False)
            for filter, is_enabled in zip(self.filters(layer), enabled, strict=True)
            if not is_enabled
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
        """Return the part of the model that computes a layer's input, of which the layer `reads` some."""
        return keras.Model(self.model.input, self.block(layer).convolution.input)

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
        """Disable filters: nothing reads them, and they are not updated.

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
        for position, channels in self._channels(filters).items():
            self.masks.disable(position, channels)

    def freeze(self, *filters: Filter) -> None:
        """Stop updating filters; they still produce output."""
        for position, channels in self._channels(filters).items():
            self.masks.freeze(position, channels)

    def unfreeze(self, *filters: Filter) -> None:
        for position, channels in self._channels(filters).items():
            self.masks.unfreeze(position, channels)

    def frozen(self) -> list[Filter]:
        """Return the enabled filters that are not updated."""
        return [
            filter
            for position, layer in enumerate((*self.layers, len(self.widths)))
            for filter, is_enabled, is_frozen in zip(
                self.filters(layer), self.masks.enabled[position], self.masks.frozen[position], strict=True
            )
            if is_enabled and is_frozen
        ]

    def _channels(self, filters: Iterable[Filter]) -> dict[int, list[int]]:
        """Return the channels of filters, by position in `blocks`."""
        found: dict[int, list[int]] = {}
        for filter in filters:
            found.setdefault(self.position(filter.layer), []).append(self.channel(filter))
        return found

    def state(self) -> MaskState:
        return MaskState(
            [np.array(weight) for weight in self.model.get_weights()],
            self.active,
            [~self.masks.frozen[position] for position in range(len(self.blocks))],
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
        enabled = [state.active[layer][own] for layer, own in zip(self.layers, self.indices, strict=True)]
        enabled.append(np.ones(self.blocks[-1].filters, bool))
        frozen = [~trainable for trainable in state.trainable]
        self.masks.restore(ChannelState(state.weights, dict(enumerate(enabled)), dict(enumerate(frozen))))

    def has_filters_of(self, state: MaskState) -> bool:
        """Return whether the network has the filters of the state, enabled or not."""
        return all(map(np.array_equal, self.indices, state.indices))
