"""The physically smaller, equivalent model: disabled filters and their input slices really gone."""

from __future__ import annotations

import keras
import numpy as np

from selfscale.nn.masking import MaskedNetwork

TOLERANCE = 1e-5
CHECKED_SIZES = ((32, 32), (17, 41), (64, 23))


def compact(network: MaskedNetwork) -> keras.Model:
    """A plain Keras model with only the enabled filters, checked to put out the same as the switched one.

    A disabled filter hands on exact zeros, so leaving out the slices of the next layer's kernel
    that read it changes nothing but the order of summation.

    Raises:
        ArithmeticError: the outputs differ by more than 1e-5 (a bug, or weights far out of range).
    """
    inputs = keras.Input(network.model.input_shape[1:], name=network.model.input.name)
    x, kept_before = inputs, None
    pairs: list[tuple[keras.layers.Layer, list[np.ndarray]]] = []
    for block, mask in zip(network.blocks, network.enabled(), strict=True):
        kept = np.flatnonzero(mask)
        for layer in block.layers:
            config = layer.get_config()
            if layer is block.convolution:
                config["filters"] = len(kept)
            smaller = type(layer).from_config(config)
            x = smaller(x)
            weights = [np.asarray(weight)[..., kept] for weight in layer.get_weights()]
            if layer is block.convolution and kept_before is not None:
                weights[0] = weights[0][:, :, kept_before, :]
            pairs.append((smaller, weights))
        kept_before = kept
    model = keras.Model(inputs, x, name=network.model.name)
    for layer, weights in pairs:
        layer.set_weights(weights)
    verify(network, model)
    return model


def verify(network: MaskedNetwork, model: keras.Model) -> float:
    """The largest difference of the outputs on random images of several sizes; at most 1e-5.

    Relative to the largest output where that exceeds 1.

    Raises:
        ArithmeticError: the difference is larger.
    """
    rng = np.random.default_rng(0)
    largest = 0.0
    channels = network.model.input_shape[-1]
    for height, width in CHECKED_SIZES:
        images = rng.random((2, height, width, channels), dtype=np.float32)
        expected = np.asarray(network.graph(images, training=False))
        difference = np.abs(np.asarray(model(images, training=False)) - expected).max()
        largest = max(largest, float(difference / max(1.0, np.abs(expected).max())))
    if not largest <= TOLERANCE:
        raise ArithmeticError(f"the compact model differs from the switched one by {largest:.2g}")
    return largest


def removed_filters(network: MaskedNetwork) -> np.ndarray:
    """The thesis's one-hot matrix of the filters to remove: uint8 (hidden layers, widest layer).

    1 is removed; a removed layer is a row of ones. Rows of narrower layers are padded with zeros.
    """
    active = network.active
    matrix = np.zeros((len(active), max((a.size for a in active), default=0)), np.uint8)
    for row, mask in zip(matrix, active, strict=True):
        row[: mask.size] = ~mask
    return matrix
