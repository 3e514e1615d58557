from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscale.nn.compaction import compact, removed_filters, verify
from selfscale.nn.fcn import build, filters_per_layer, size
from selfscale.nn.layer_removal import removable_layers, with_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.records import Filter

PLAIN = (keras.layers.InputLayer, keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.ReLU)


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    side=st.integers(9, 30),
)
def test_any_removal_leaves_an_equal_network_without_the_filters(widths, seed, side):
    rng = np.random.default_rng(seed)
    network = MaskedNetwork(build(widths, kernel=3, mean=0.05, deviation=0.3, seed=(seed,)))
    for block in network.blocks:  # biases that matter
        block.convolution.bias.assign(rng.normal(size=block.filters) * 0.2)
    while rng.random() < 0.7 and (candidates := network.removable()):
        network.disable(candidates[rng.integers(len(candidates))])
    model = compact(network)
    images = rng.random((2, side, side + 3, 1), dtype=np.float32)
    np.testing.assert_allclose(model(images), network.graph(images), atol=1e-5)
    assert filters_per_layer(model) == network.filters_kept
    assert size(model) == size(network.model, network.filters_kept)
    assert size(model).parameters == model.count_params()
    assert all(isinstance(layer, PLAIN) for layer in model.layers)
    assert removed_filters(network).sum() == sum(widths) - sum(network.filters_kept)


def test_layers_behind_a_convolution_lose_their_channels_too():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    normalization = keras.layers.BatchNormalization()
    x = keras.layers.ReLU()(normalization(x))
    x = keras.layers.MaxPooling2D(2)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same")(x))
    rng = np.random.default_rng(0)
    normalization.set_weights([rng.random(4) + 0.5 for _ in range(4)])  # beta above zero: not zero at zero
    network = MaskedNetwork(model)
    network.disable(Filter(0, 1), Filter(0, 2))
    smaller = compact(network)
    images = rng.random((1, 16, 16, 3), dtype=np.float32)
    np.testing.assert_allclose(smaller(images), network.graph(images), atol=1e-5)
    assert smaller.count_params() == 3 * 9 * 2 + 4 * 2 + 9 * 2 * 2 + 2


def test_the_one_hot_matrix_marks_the_removed_filters():
    network = MaskedNetwork(build([2, 3], kernel=3))
    network.disable(Filter(0, 1), Filter(1, 0))
    assert removed_filters(network).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_wrong_compact_model_is_noticed():
    network = MaskedNetwork(build([2], kernel=3))
    model = compact(network)
    model.layers[-1].bias.assign([0.2])
    with pytest.raises(ArithmeticError, match="differs"):
        verify(network, model)


def test_a_compact_model_is_loaded_by_stock_keras(tmp_path):
    network = MaskedNetwork(build([3, 3], kernel=3))
    network.disable(Filter(0, 0))
    model = compact(network)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={})
    images = np.random.default_rng(0).random((1, 12, 12, 1), dtype=np.float32)
    np.testing.assert_array_equal(loaded(images), model(images))


@settings(max_examples=10, deadline=None)
@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=4), seed=st.integers(0, 1000))
def test_without_layers_there_is_a_convolution_less_for_each(widths, seed):
    """Against a chain of plain layers, in which what is off was set to zero by hand."""
    rng = np.random.default_rng(seed)
    network = MaskedNetwork(build(widths, kernel=3, mean=0.05, deviation=0.3, seed=(seed,)))
    for block in network.blocks:
        block.convolution.bias.assign(rng.normal(size=block.filters) * 0.2)
    pictures = rng.integers(256, size=(2, 14, 19, 1), dtype=np.uint8)
    images = pictures / np.float32(255)
    targets = np.full(pictures.shape, 0.3, np.float32)
    removed = 0
    while rng.random() < 0.8:
        if candidates := network.removable():
            network.disable(candidates[rng.integers(len(candidates))])
        if rng.random() < 0.5 and (layers := removable_layers(network)):
            layer = layers[rng.integers(len(layers))]
            network = without_layer(network, layer, pictures, targets, int(rng.integers(3)), rng)
            removed += 1
    model = compact(network)
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == len(widths) + 1 - removed
    assert filters_per_layer(model) == tuple(kept for kept in network.filters_kept if kept)
    assert size(model) == network.size()
    x = images
    for layer in (*network.layers, len(widths)):
        x = keras.ops.conv(x, network.block(layer).convolution.kernel, padding="same")
        x = keras.ops.relu(x + network.block(layer).convolution.bias)
        x = x * network.active[layer].astype("float32") if layer < len(widths) else x
    np.testing.assert_allclose(model(images), x, atol=1e-5)

    matrix = removed_filters(network)
    assert matrix.shape == (len(widths), max(widths)) and matrix.dtype == np.uint8
    for layer, width in enumerate(widths):
        assert matrix[layer, :width].sum() == width - network.filters_kept[layer]
        assert not matrix[layer, width:].any()
        assert matrix[layer, :width].all() == (layer not in network.layers)


def test_a_removed_layer_is_a_row_of_ones():
    network = with_layers(MaskedNetwork(build([2, 3, 2], kernel=3)), [0, 2])
    network.disable(Filter(2, 0))
    assert removed_filters(network).tolist() == [[0, 0, 0], [1, 1, 1], [1, 0, 0]]
