"""The compact model is equivalent, and so is the network in which a search goes on."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import new_trainer
from networks import IMAGES, PICTURES, assert_equal, new_network
from selfscale.config import Training
from selfscale.decisions import Filter
from selfscale.nn import redundancy
from selfscale.nn.alterations import reinitialize
from selfscale.nn.compaction import compact, compacted, pays, removed_filters, verify, with_filters
from selfscale.nn.fcn import build, filters_per_layer, size
from selfscale.nn.input_pipeline import Split
from selfscale.nn.layer_removal import removable_layers, with_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant
from selfscale.nn.trainer import Plan
from selfscale.search_config import Minimization

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
    np.testing.assert_allclose(model(images), network.model(images), atol=1e-5)
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
    np.testing.assert_allclose(smaller(images), network.model(images), atol=1e-5)
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
            network = without_layer(network, layer, Split(pictures, targets), int(rng.integers(3)), rng)
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


# -- the search goes on in the compact network ---------------------------------------------------


def drawn(widths: list[int], seed: int) -> tuple[MaskedNetwork, np.random.Generator]:
    """A network in which some filters are off."""
    network, rng = new_network(widths, seed), np.random.default_rng(seed)
    while rng.random() < 0.8 and (candidates := network.removable()):
        network.disable(candidates[rng.integers(len(candidates))])
    return network, rng


WIDTHS = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(WIDTHS, st.integers(0, 1000))
def test_the_smaller_network_is_the_same_by_every_number(widths, seed):
    network, rng = drawn(widths, seed)
    kept = network.filters_kept
    smaller = compacted(network)
    assert filters_per_layer(smaller.model) == kept
    for _ in range(3):
        np.testing.assert_allclose(smaller.model(IMAGES), network.model(IMAGES), atol=1e-5)
        assert_equal(smaller.active, network.active)
        assert (smaller.filters_kept, smaller.size()) == (network.filters_kept, network.size())
        assert smaller.removable() == network.removable()
        np.testing.assert_array_equal(removed_filters(smaller), removed_filters(network))
        np.testing.assert_allclose(compact(smaller)(IMAGES), network.model(IMAGES), atol=1e-5)
        first = smaller.filter_weights(0)
        np.testing.assert_array_equal(first[network.active[0]], network.filter_weights(0)[network.active[0]])
        if not (candidates := network.removable()):
            break
        filter = candidates[rng.integers(len(candidates))]
        for one in (network, smaller):
            one.disable(filter)


@settings(max_examples=10, deadline=None)
@given(WIDTHS, st.integers(0, 1000))
def test_strategies_measure_the_same(widths, seed):
    network, _ = drawn(widths, seed)
    split = Split(PICTURES, (PICTURES / 255).astype(np.float16))
    one, other = (Probe(found, split, "mae") for found in (network, compacted(network)))
    candidates = network.removable()
    if candidates:
        np.testing.assert_allclose(
            other.losses_without(candidates), one.losses_without(candidates), rtol=1e-4
        )
    for measure in ("gradients", "activations", "zeros"):
        for a, b, active in zip(
            getattr(one, measure)(), getattr(other, measure)(), network.active, strict=True
        ):
            np.testing.assert_allclose(a[active], b[active], rtol=1e-3, atol=1e-6)
            assert not b[~active].any()


def test_what_is_frozen_stays_frozen_and_learns_nothing(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)
    trainer.network.disable(Filter(1, 1))
    trainer.network.freeze(Filter(0, 1), Filter(1, 2), Filter(2, 0))
    smaller = trainer.of(compacted(trainer.network))
    assert smaller.network.frozen() == [Filter(0, 1), Filter(1, 2), Filter(2, 0)]
    before = [smaller.network.filter_weights(layer) for layer in range(3)]
    smaller.session(Plan(4, 1), np.random.default_rng(0))
    after = [smaller.network.filter_weights(layer) for layer in range(3)]
    for layer, index in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_array_equal(before[layer][index], after[layer][index])
    assert (before[1][3] != after[1][3]).any()
    assert not after[1][1].any()
    smaller.network.unfreeze(Filter(1, 2))
    assert smaller.network.frozen() == [Filter(0, 1), Filter(2, 0)]


def test_filters_are_found_by_their_numbers():
    network = new_network([4, 3])
    network.disable(Filter(0, 1), Filter(1, 0))
    smaller = compacted(network)
    assert smaller.filters(0) == [Filter(0, 0), Filter(0, 2), Filter(0, 3)]
    weights = smaller.filter_weights(0)
    reinitialize(smaller, [Filter(0, 2)], np.random.default_rng(0))
    changed = (smaller.filter_weights(0) != weights).any(axis=1)
    assert changed.tolist() == [False, False, True, False]
    kernel = smaller.block(1).convolution.kernel.numpy()
    redundancy.merge(smaller, Redundant(Filter(0, 3), Filter(0, 2), 0.5))
    merged = smaller.block(1).convolution.kernel.numpy()
    np.testing.assert_allclose(merged[:, :, 1], kernel[:, :, 1] + 0.5 * kernel[:, :, 2], rtol=1e-6)
    with pytest.raises(ValueError, match="disabled already"):
        smaller.disable(Filter(0, 1))
    split = Split(PICTURES, np.full(PICTURES.shape, 0.3, np.float16))
    without = without_layer(smaller, 0, split, 0, np.random.default_rng(0))
    assert without.filters(1) == [Filter(1, 1), Filter(1, 2)]
    assert [int(active.sum()) for active in without.active] == [0, 2]


def test_a_state_is_restored_into_a_network_of_the_same_filters_only():
    network = new_network([3, 3])
    start = network.state()
    network.disable(Filter(0, 1))
    smaller = compacted(network)
    smaller.disable(Filter(1, 2))
    state = smaller.state()
    other = with_filters(new_network([3, 3], seed=7), state.layers, state.indices)
    other.restore(state)
    np.testing.assert_array_equal(other.model(IMAGES), smaller.model(IMAGES))
    assert_equal(other.active, smaller.active)
    for wrong, into in ((start, smaller), (state, network)):
        with pytest.raises(ValueError, match="other filters were removed"):
            into.restore(wrong)


def test_when_it_pays(train_split, validation_split):
    """Counted by hand: 3 passes, batches of 4 crops of 24x24, MACs/pixel 9 (3 + 12 + 4)."""
    trainer = new_trainer(train_split, validation_split)
    trainer.network.disable(Filter(0, 0))
    saved = 9 * (1 + 4)
    steps = round(1e11 / (3 * saved * 4 * 24 * 24))
    assert not pays(trainer, steps - 1)
    assert pays(trainer, steps + 1)


def test_the_thesis_network_is_never_worth_it_but_wide_ones_are(train_split, validation_split):
    steps = Minimization().removal.steps
    for widths, left, expected in (([5, 5], 1, False), ([16, 16], 8, True)):
        network = MaskedNetwork(build(widths))
        for layer, width in enumerate(widths):
            network.disable(*(Filter(layer, index) for index in range(left, width)))
        trainer = new_trainer(train_split, validation_split, settings=Training())
        large = dataclasses.replace(train_split, images=np.zeros((1, 256, 256, 1), np.uint8))
        trainer.network, trainer.train = network, large
        assert pays(trainer, steps) is expected


def test_layers_and_filters_go_together():
    network = new_network([3, 2, 3])
    network.disable(Filter(0, 0), Filter(2, 1))
    smaller = compacted(with_layers(network, (0, 2)))
    assert smaller.layers == (0, 2)
    assert [indices.tolist() for indices in smaller.indices] == [[1, 2], [0, 2]]
    assert smaller.filters_kept == (2, 0, 2)
