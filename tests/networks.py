"""Networks, and what they consist of, for the tests of `nn` and `search`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Trainer
from selfscale.search_config import Removal

PICTURES = np.random.default_rng(0).integers(256, size=(3, 20, 24, 1), dtype=np.uint8)
IMAGES = PICTURES / np.float32(255)


def new_network(widths: list[int], seed: int = 1) -> MaskedNetwork:
    """Random weights and biases: positive on average, so that hardly any filter is silent."""
    network = MaskedNetwork(build(widths, kernel=3, mean=0.05, deviation=0.2, seed=(seed,)))
    rng = np.random.default_rng(seed)
    for block in network.blocks:
        block.convolution.bias.assign(rng.normal(scale=0.1, size=block.filters))
    return network


def everything(trainer: Trainer) -> list[np.ndarray]:
    """All weights, masks and variables of the optimizer."""
    state = trainer.network.state()
    adam = [v.numpy().copy() for v in trainer.optimizer.variables]
    return [*state.weights, *state.active, *state.trainable, *adam]


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def state_of(network: MaskedNetwork) -> list[np.ndarray]:
    state = network.state()
    return [*state.weights, *state.active, *state.trainable]


def chain(*layers: keras.layers.Layer) -> MaskedNetwork:
    inputs = keras.Input((None, None, 1))
    x = inputs
    for layer in layers:
        x = layer(x)
    return MaskedNetwork(keras.Model(inputs, x))


def conv(filters: int, **arguments) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(filters, 3, **{"padding": "same", "activation": "relu"} | arguments)


def plain_removal(**update: Any) -> Removal:
    """Trials as the thesis has them: nothing is refitted, and each has its session."""
    return Removal(**{"refit": False, "sessions": "always", **update})
