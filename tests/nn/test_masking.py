from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import new_trainer
from selfscale.decisions import Filter
from selfscale.nn.alterations import reinitialize
from selfscale.nn.fcn import build, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan

RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 20, 20, 1), dtype=np.float32)


def with_zeroed_filters(model: keras.Model, off: list[Filter]) -> keras.Model:
    """An independent reference: kernels and biases of removed filters set to zero by hand.

    With ReLU such a filter puts out zero.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer, index in off:
        convolution = copy.layers[layer + 1]
        kernel, bias = (np.array(w) for w in convolution.get_weights())
        kernel[..., index], bias[index] = 0, 0
        convolution.set_weights([kernel, bias])
    return copy


@settings(max_examples=20, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=5))
def test_a_disabled_filter_puts_out_zero(chosen):
    model = build([4, 4], kernel=3, deviation=0.4)
    network = MaskedNetwork(model)
    off = [Filter(*pair) for pair in sorted(chosen) if pair[1] != 3]  # one of each layer stays
    network.disable(*off)
    expected = with_zeroed_filters(model, off)(IMAGES)
    np.testing.assert_allclose(network.model(IMAGES), expected, atol=1e-6)
    assert network.filters_kept == (4 - sum(f.layer == 0 for f in off), 4 - sum(f.layer == 1 for f in off))


def test_a_disabled_filter_is_zero_behind_an_activation_that_is_not_zero_at_zero():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(2, 3, padding="same", activation="sigmoid")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, use_bias=False)(x))
    network = MaskedNetwork(model)
    network.disable(Filter(0, 1))
    model.layers[2].set_weights([np.array([0.0, 1.0], np.float32).reshape(1, 1, 2, 1)])
    network.masks.hold()  # weights that are set in another way are zeroed, too
    assert np.abs(network.model(IMAGES)).max() == 0


def test_filters_of_an_activation_that_mixes_channels_stay():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="softmax")(inputs)
    network = MaskedNetwork(keras.Model(inputs, keras.layers.Conv2D(1, 1)(x)))
    assert network.removable() == []
    with pytest.raises(ValueError, match="softmax"):
        network.disable(Filter(0, 0))


def test_the_last_filter_of_a_layer_and_a_filter_that_is_off_are_refused():
    network = MaskedNetwork(build([2, 1], kernel=3))
    assert network.removable() == [Filter(0, 0), Filter(0, 1)]
    network.disable(Filter(0, 0))
    assert network.removable() == []
    for wrong in (Filter(0, 0), Filter(0, 1), Filter(1, 0), Filter(2, 0), Filter(0, 2), Filter(0, -1)):
        with pytest.raises(ValueError):
            network.disable(wrong)
    assert network.filters_kept == (1, 1)


def weights_of(network: MaskedNetwork, filter: Filter) -> np.ndarray:
    return network.filter_weights(filter.layer)[filter.index].copy()


def test_frozen_and_disabled_filters_do_not_move_even_with_momentum(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)
    network = trainer.network
    start = {f: weights_of(network, f) for f in network.removable()}
    trainer.session(Plan(10, 1), np.random.default_rng(0))  # Adam now has momentum
    moving = [f for f in start if not np.array_equal(weights_of(network, f), start[f])]
    frozen, off, free = moving[0], moving[-1], moving[-2]
    network.freeze(frozen)
    network.disable(off)
    before = {f: weights_of(network, f) for f in (frozen, off, free)}
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    np.testing.assert_array_equal(weights_of(network, frozen), before[frozen])
    np.testing.assert_array_equal(weights_of(network, off), before[off])
    assert not np.array_equal(weights_of(network, free), before[free])
    assert np.abs(network.model(IMAGES) - with_zeroed_filters(network.model, [off])(IMAGES)).max() < 1e-6
    network.unfreeze(frozen)
    trainer.session(Plan(10, 1), np.random.default_rng(1))
    assert not np.array_equal(weights_of(network, frozen), before[frozen])


def test_frozen_batch_normalization_keeps_its_statistics(train_split, validation_split):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(3, 3, padding="same")(inputs)
    normalization = keras.layers.BatchNormalization(momentum=0.5)
    x = keras.layers.ReLU()(normalization(x))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(x))
    trainer = new_trainer(train_split, validation_split, model)
    trainer.network.freeze(Filter(0, 0))
    before = [np.array(w) for w in normalization.get_weights()]
    trainer.session(Plan(5, 1), np.random.default_rng(0))
    for old, new in zip(before, normalization.get_weights(), strict=True):
        assert old[0] == new[0]
        assert not np.array_equal(old[1:], new[1:])


def test_restoring_a_state_is_exact():
    network = MaskedNetwork(build([3, 3], kernel=3))
    state = network.state()
    expected = np.array(network.model(IMAGES))
    network.disable(Filter(0, 0))
    network.freeze(Filter(1, 1))
    reinitialize(network, [Filter(1, 2)], np.random.default_rng(5))
    network.restore(state)
    np.testing.assert_array_equal(network.model(IMAGES), expected)
    assert network.filters_kept == (3, 3)
    assert all(trainable.all() for trainable in network.state().trainable)


# -- networks without some of the initial layers -------------------------------------------------


@pytest.fixture
def without_second() -> MaskedNetwork:
    """Layers 0 and 2 of an initial network of three."""
    return MaskedNetwork(build([3, 2], kernel=3), widths=[3, 4, 2], layers=[0, 2])


def test_a_removed_layer_is_one_whose_filters_are_all_off(without_second):
    network = without_second
    assert [active.tolist() for active in network.active] == [[True] * 3, [False] * 4, [True] * 2]
    assert network.filters_kept == (3, 0, 2)
    assert network.removable() == [*(Filter(0, i) for i in range(3)), Filter(2, 0), Filter(2, 1)]
    assert network.filter_weights(1).shape[0] == 4 and not network.filter_weights(1).any()
    assert network.size() == size(network.model)
    for wrong in (Filter(1, 0), Filter(1, 3), Filter(2, 2), Filter(3, 0)):
        with pytest.raises(ValueError):
            network.disable(wrong)
    network.disable(Filter(2, 0), Filter(0, 1))
    assert network.filters_kept == (2, 0, 1)
    assert network.size() == size(build([2, 1], kernel=3))


def test_blocks_and_features_are_found_by_the_initial_numbers(without_second):
    network = without_second
    assert [network.position(layer) for layer in (0, 2, 3)] == [0, 1, 2]
    assert [network.block(layer) for layer in (0, 2, 3)] == network.blocks
    for removed in (1, 4):
        with pytest.raises(ValueError):
            network.position(removed)
    network.disable(Filter(0, 1))
    x = IMAGES
    for layer in (0, 2):
        np.testing.assert_array_equal(network.features(layer)(IMAGES) * network.reads(layer), x)
        x = np.array(network.block(layer).convolution(x)) * network.active[layer]
    np.testing.assert_allclose(network.features(3)(IMAGES), x, atol=1e-6)
    np.testing.assert_allclose(network.model(IMAGES), network.block(3).convolution(x), atol=1e-6)


def test_what_is_frozen_is_told_by_the_initial_numbers(without_second):
    network = without_second
    assert network.frozen() == []
    network.freeze(Filter(2, 1), Filter(0, 0), Filter(3, 0))
    assert network.frozen() == [Filter(0, 0), Filter(2, 1), Filter(3, 0)]  # 3: the output layer
    network.disable(Filter(2, 1))  # not updated because it is off
    assert network.frozen() == [Filter(0, 0), Filter(3, 0)]
    network.unfreeze(*network.frozen())
    assert network.frozen() == []


def test_what_is_disabled_is_told_by_the_initial_numbers(without_second):
    off = [Filter(0, 2), Filter(2, 0)]
    without_second.disable(*off)
    assert without_second.disabled() == off
    assert without_second.hidden() == [Filter(0, 0), Filter(0, 1), Filter(2, 1)]
    assert [without_second.reads(layer).tolist() for layer in (0, 2, 3)] == [[1], [1, 1, 0], [0, 1]]


def test_a_state_of_other_layers_is_refused_and_changes_nothing(without_second):
    whole = MaskedNetwork(build([3, 4, 2], kernel=3))
    assert whole.state().layers == (0, 1, 2)
    assert without_second.state().layers == (0, 2)
    for network, state in ((whole, without_second.state()), (without_second, whole.state())):
        before = network.state()
        with pytest.raises(ValueError, match="layers"):
            network.restore(state)
        for old, new in zip(before.weights, network.state().weights, strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("widths", [[3, 5, 2], [3, 4, 2, 1], [3, 4, 3]], ids=str)
def test_a_state_of_other_widths_is_refused(without_second, widths):
    """Though the layers that are left are the same, or at least as many."""
    other = MaskedNetwork(build([3, widths[2]], kernel=3), widths=widths, layers=[0, 2])
    with pytest.raises(ValueError):
        without_second.restore(other.state())


def test_restoring_a_state_without_a_layer_is_exact(without_second):
    network = without_second
    network.disable(Filter(2, 0))
    network.freeze(Filter(0, 1))
    state, expected = network.state(), np.array(network.model(IMAGES))
    network.disable(Filter(0, 0))
    network.unfreeze(Filter(0, 1))
    reinitialize(network, [Filter(2, 1)], np.random.default_rng(5))
    network.restore(state)
    np.testing.assert_array_equal(network.model(IMAGES), expected)
    assert network.filters_kept == (3, 0, 1)
    assert network.frozen() == [Filter(0, 1)]
