"""A hidden layer is taken away in a new network, which keeps what was learnt."""

from __future__ import annotations

from unittest.mock import patch

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import IMAGES, PICTURES, assert_equal, chain, conv, new_network, state_of
from selfscale.decisions import Filter
from selfscale.nn import layer_removal as layers
from selfscale.nn.input_pipeline import Split
from selfscale.nn.layer_removal import fit, removable_layers, with_layers, without_layer
from selfscale.nn.masking import MaskedNetwork


def remove(network: MaskedNetwork, layer: int, attempt: int = 0, level: float = 0.3, seed: int = 0):
    targets = np.full(PICTURES.shape, level, np.float16)
    return without_layer(network, layer, Split(PICTURES, targets), attempt, np.random.default_rng(seed))


def make_identity(network: MaskedNetwork, layer: int) -> None:
    """Let a layer hand on what it reads: each filter copies one channel, which no ReLU changes again."""
    kernel = np.zeros(network.block(layer).convolution.kernel.shape, np.float32)
    for channel in range(kernel.shape[2]):
        kernel[1, 1, channel, channel] = 1.0
    network.block(layer).convolution.set_weights([kernel, np.zeros(kernel.shape[-1], np.float32)])


# -- what stays ----------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=5), st.data())
def test_all_but_the_convolution_behind_stays(widths, data):
    network = new_network(widths)
    for filter in data.draw(st.sets(st.sampled_from([Filter(i, 0) for i in range(len(widths))]))):
        if filter in network.removable():
            network.disable(filter)
    before, output = state_of(network), np.array(network.model(IMAGES))
    layer = data.draw(st.sampled_from(removable_layers(network)))
    # Those that are silent without the layer are drawn anew, see below.
    with patch.object(layers, "silent", return_value=[]):
        smaller = remove(network, layer, attempt=data.draw(st.integers(0, 3)))

    assert_equal(state_of(network), before)
    np.testing.assert_array_equal(network.model(IMAGES), output)
    assert smaller.widths == tuple(widths)
    assert smaller.layers == tuple(i for i in range(len(widths)) if i != layer)
    assert not smaller.active[layer].any()
    behind = layer + 1
    for other in (*smaller.layers, len(widths)):
        if other < len(widths):
            np.testing.assert_array_equal(smaller.active[other], network.active[other])
        if other != behind:
            np.testing.assert_array_equal(smaller.filter_weights(other), network.filter_weights(other))
    assert smaller.model(IMAGES).shape == output.shape


def test_numbers_of_layers_stay():
    """A filter of a later layer is named as before, whatever was removed in front of it."""
    network = new_network([2, 3, 4, 2])
    smaller = remove(remove(network, 1), 0)
    assert smaller.layers == (2, 3)
    np.testing.assert_array_equal(smaller.filter_weights(3), network.filter_weights(3))
    smaller.disable(Filter(2, 3))
    assert smaller.active[2].tolist() == [True, True, True, False]
    assert smaller.filters_kept == (0, 0, 3, 2)
    assert smaller.removable() == [Filter(2, 0), Filter(2, 1), Filter(2, 2), Filter(3, 0), Filter(3, 1)]
    assert network.filters_kept == (2, 3, 4, 2)  # they share no switch


def test_training_the_new_network_leaves_the_given_one_alone():
    network = new_network([2, 2, 2])
    before = state_of(network)
    smaller = remove(network, 1)
    for variable in smaller.model.trainable_variables:
        variable.assign(variable + 1.0)
    smaller.disable(Filter(0, 0))
    smaller.freeze(Filter(2, 1))
    assert_equal(state_of(network), before)


def test_with_layers_goes_down_by_several_at_once():
    network = new_network([2, 2, 2, 2])
    network.disable(Filter(3, 1))
    smaller = with_layers(network, [0, 3])
    assert smaller.layers == (0, 3)
    assert [block.filters for block in smaller.blocks] == [2, 2, 1]
    for layer in (0, 3, 4):
        np.testing.assert_array_equal(smaller.filter_weights(layer), network.filter_weights(layer))
    assert [active.tolist() for active in smaller.active] == [[1, 1], [0, 0], [0, 0], [1, 0]]


def test_from_five_layers_to_one():
    network = new_network([3, 4, 2, 4, 3])
    for layer in (4, 1, 3, 0):
        network = remove(network, layer)
    assert network.layers == (2,)
    assert network.filters_kept == (0, 0, 2, 0, 0)
    assert removable_layers(network) == []
    assert network.model(IMAGES).shape == IMAGES.shape


# -- which layers may go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resizing",
    [
        [conv(2, strides=2)],
        [conv(2, padding="valid")],
        [conv(2), keras.layers.MaxPooling2D(2)],
        [conv(2), keras.layers.AveragePooling2D(2)],
        [conv(2), keras.layers.UpSampling2D(2)],
        [conv(2), keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(2)],
    ],
    ids=["strides", "valid padding", "maximum", "average", "upsampling", "behind another"],
)
def test_a_layer_that_resizes_the_image_stays(resizing):
    network = chain(conv(2), *resizing, conv(2), conv(1))
    assert removable_layers(network) == [0, 2]
    with pytest.raises(ValueError, match="layer 1 may not be removed"):
        remove(network, 1)
    smaller = remove(network, 0)
    assert smaller.model(IMAGES).shape == network.model(IMAGES).shape


def test_the_only_hidden_layer_stays_and_so_does_what_is_gone():
    network = new_network([3, 2])
    assert removable_layers(network) == [0, 1]
    smaller = remove(network, 0)
    assert removable_layers(smaller) == []
    for layer in (0, 1, 2):  # gone, the only one, the output layer
        with pytest.raises(ValueError, match="may not be removed"):
            remove(smaller, layer)
    with pytest.raises(ValueError, match="may not be removed"):
        remove(network, 2)


def test_followers_stay_with_their_convolutions():
    normalizations = [keras.layers.BatchNormalization() for _ in range(2)]
    network = chain(
        conv(2, activation=None), normalizations[0], keras.layers.ReLU(), conv(2), normalizations[1], conv(1)
    )
    rng = np.random.default_rng(0)
    for normalization in normalizations:
        normalization.set_weights([rng.random(2) + 0.5 for _ in range(4)])
    without_second = remove(network, 1, attempt=1)
    assert [type(layer).__name__ for layer in without_second.block(0).followers] == [
        "BatchNormalization",
        "ReLU",
    ]
    kept = without_second.block(0).followers[0]
    assert kept is not normalizations[0]
    assert_equal(kept.get_weights(), normalizations[0].get_weights())
    without_first = remove(network, 0, attempt=1)
    (kept,) = without_first.block(1).followers
    assert_equal(kept.get_weights(), normalizations[1].get_weights())
    assert (
        sum(isinstance(layer, keras.layers.BatchNormalization) for layer in without_first.model.layers) == 1
    )


# -- how the convolution behind starts -----------------------------------------------------------


@pytest.mark.parametrize(
    "convolution",
    [
        {"kernel_size": 1},
        {"kernel_size": 3},
        {"kernel_size": (5, 3)},
        {"kernel_size": 3, "use_bias": False},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "strides": 2},
        {"kernel_size": 3, "dilation_rate": 2},
    ],
    ids=str,
)
def test_fit_finds_a_known_convolution(convolution):
    rng = np.random.default_rng(3)
    features = rng.random((4, 21, 26, 3), dtype=np.float32)
    layer = keras.layers.Conv2D(2, **{"padding": "same"} | convolution)
    layer.build(features.shape)
    known = [rng.normal(size=weight.shape).astype(np.float32) for weight in layer.get_weights()]
    layer.set_weights(known)
    wanted = np.array(layer(features))
    layer.set_weights([np.zeros_like(weight) for weight in known])
    fit(layer, features, wanted, rng)
    for found, expected in zip(layer.get_weights(), known, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_fit_gives_no_weight_to_channels_that_are_always_zero_and_splits_equal_ones():
    rng = np.random.default_rng(3)
    features = np.repeat(rng.random((4, 20, 20, 1), dtype=np.float32), 3, axis=-1)
    features[..., 2] = 0
    layer = keras.layers.Conv2D(1, 1)
    layer.build(features.shape)
    fit(layer, features, 3 * features[..., :1] + 0.5, rng)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(kernel.ravel(), [1.5, 1.5, 0.0], atol=1e-4)
    np.testing.assert_allclose(bias, 0.5, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4])
def test_a_layer_that_hands_on_what_it_reads_is_not_missed(layer):
    """Fitted, the output is the same without it."""
    network = new_network([1, 1, 1, 1, 1] if layer == 0 else [3, 3, 3, 3, 3])
    for convolution in (block.convolution for block in network.blocks[:-1]):
        convolution.bias.assign(np.abs(convolution.bias))
    make_identity(network, layer)
    smaller = remove(network, layer)
    expected = np.array(network.model(IMAGES))
    assert np.ptp(expected) > 0.01
    assert np.abs(smaller.model(IMAGES) - expected).max() < 1e-3


def test_what_fits_is_fitted_at_first_then_kept_then_drawn():
    network = new_network([3, 3, 3])
    fitted, kept, fresh, another = (remove(network, 1, attempt, seed=attempt) for attempt in range(4))
    np.testing.assert_array_equal(kept.filter_weights(2), network.filter_weights(2))
    wanted, near = (np.array(net.block(2).convolution(net.features(2)(IMAGES))) for net in (network, fitted))
    errors = {
        name: np.abs(np.array(net.block(2).convolution(net.features(2)(IMAGES))) - wanted).mean()
        for name, net in (("kept", kept), ("fresh", fresh))
    }
    assert np.abs(near - wanted).mean() < min(errors.values())
    drawn = [net.filter_weights(2) for net in (network, kept, fitted, fresh, another)]
    assert not any(np.array_equal(a, b) for i, a in enumerate(drawn[1:]) for b in drawn[i + 2 :])


def test_what_does_not_fit_is_fitted_at_first_then_drawn():
    network = new_network([3, 4, 2])
    fitted, fresh = (remove(network, 1, attempt) for attempt in range(2))
    before = network.block(2).convolution(network.features(2)(IMAGES))
    errors = [
        np.abs(np.array(net.block(2).convolution(net.features(2)(IMAGES)) - before)).mean()
        for net in (fitted, fresh)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert np.abs(fresh.filter_weights(2)[:, :-1]).max() <= 0.05 + 2 * 0.2 + 1e-6  # of its own initializer
    assert not fresh.filter_weights(2)[:, -1].any()


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_output_layer_that_was_not_fitted_starts_at_the_level_of_the_targets(attempt):
    smaller = remove(new_network([3, 3]), 1, attempt, level=0.375)
    response = keras.ops.conv(
        smaller.features(2)(IMAGES), smaller.block(2).convolution.kernel, padding="same"
    )
    assert np.mean(response + smaller.block(2).convolution.bias) == pytest.approx(0.375, abs=1e-5)
    assert np.ptp(np.array(smaller.model(IMAGES))) > 0


def test_only_the_first_images_are_looked_at():
    network = new_network([3, 2])
    images = np.random.default_rng(1).integers(256, size=(20, 16, 16, 1), dtype=np.uint8)
    targets = images.astype(np.float16) / 255
    for attempt in (0, 1, 2):
        whole, first = (
            without_layer(network, 1, Split(images[:n], targets[:n]), attempt, np.random.default_rng(0))
            for n in (20, 16)
        )
        assert_equal(state_of(whole), state_of(first))


def test_a_disabled_filter_behind_stays_off_and_one_before_is_not_read():
    network = new_network([3, 2, 3])
    network.disable(Filter(0, 1), Filter(2, 0))
    smaller = remove(network, 1)
    assert smaller.active[2].tolist() == [False, True, True]
    kernel = smaller.block(2).convolution.kernel.numpy()
    assert np.abs(kernel[:, :, 1]).max() < 1e-6 < np.abs(kernel[:, :, [0, 2]]).max()


def test_filters_that_are_silent_without_the_layer_are_drawn_anew():
    """One that reads nothing but zeros, or puts out only zeros, could not learn; one that is off need not."""
    network = new_network([3, 3, 3])
    for filter in (Filter(0, 1), Filter(0, 2), Filter(2, 0)):
        bias = network.block(filter.layer).convolution.bias
        bias.assign(np.where(np.arange(3) == filter.index, -100.0, bias.numpy()))
    network.disable(Filter(0, 2))
    before = state_of(network)
    smaller = remove(network, 1)
    assert_equal(state_of(network), before)
    rows, old = smaller.filter_weights(0), network.filter_weights(0)
    assert [np.array_equal(a, b) for a, b in zip(rows, old, strict=True)] == [True, False, True]
    for index in (0, 1):
        fresh = smaller.filter_weights((0, 2)[index])[(1, 0)[index]]
        assert np.abs(fresh[:-1]).max() <= 0.05 + 2 * 0.2 + 1e-6 and fresh[-1] == 0
    assert smaller.active[0].tolist() == [True, True, False]


def test_the_same_random_numbers_make_the_same_network():
    network = new_network([3, 4, 2])
    for attempt in (0, 1):
        one, other, third = (remove(network, 1, attempt, seed=seed) for seed in (5, 5, 6))
        assert_equal(state_of(one), state_of(other))
        assert attempt == 0 or not np.array_equal(one.filter_weights(2), third.filter_weights(2))


def test_an_output_layer_without_a_bias_can_lose_the_layer_before_it():
    network = chain(conv(2), conv(2), conv(1, use_bias=False))
    for attempt in range(3):
        assert remove(network, 1, attempt).model(IMAGES).shape == IMAGES.shape
