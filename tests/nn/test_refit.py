"""What reads removed filters is fitted to what it put out before."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import PICTURES, assert_equal, chain, conv, new_network, state_of
from selfscale.decisions import Filter
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.refit import patches, refit, refit_if_better

IMAGES = PICTURES / np.float32(255)  # 3 x 20 x 24: all positions are looked at


def response(network: MaskedNetwork, layer: int) -> np.ndarray:
    """What a convolution puts out before its activation; float64."""
    convolution = network.block(layer).convolution
    read = network.features(layer)(IMAGES)
    bare = type(convolution).from_config({**convolution.get_config(), "activation": None})
    bare.build(read.shape)
    bare.set_weights(convolution.get_weights())
    return np.asarray(bare(read), np.float64)


def squared_error(network: MaskedNetwork, layer: int, wanted: np.ndarray) -> float:
    return float(np.square(response(network, layer) - wanted).sum())


def refitted(network: MaskedNetwork, *removed: Filter, seed: int = 0, images: np.ndarray = PICTURES) -> None:
    before = network.state()
    network.disable(*removed)
    refit(network, before, images, np.random.default_rng(seed))


def make_combination(network: MaskedNetwork, layer: int, **factors: float) -> None:
    """Let filter 0 put out a combination of other filters that are linear where they are used."""
    convolution = network.block(layer).convolution
    kernel, bias = (np.abs(weight) for weight in convolution.get_weights())  # no ReLU is ever closed
    kernel[..., 0] = sum(factor * kernel[..., int(name[1:])] for name, factor in factors.items())
    bias[0] = sum(factor * bias[int(name[1:])] for name, factor in factors.items())
    convolution.set_weights([kernel, bias])


# -- the patches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": (5, 2)},
        {"kernel_size": 4, "strides": (2, 3)},
        {"kernel_size": 3, "dilation_rate": 2},
        {"kernel_size": 1, "strides": 3},
    ],
    ids=str,
)
def test_patches_are_what_the_convolution_reads_also_at_the_border(options, padding):
    features = np.random.default_rng(0).random((13, 16, 3), dtype=np.float32)
    convolution = keras.layers.Conv2D(2, padding=padding, use_bias=False, **options)
    expected = np.array(convolution(features[None]))[0].reshape(-1, 2)
    positions, found = patches(convolution, features, 1000, np.random.default_rng(1))
    assert sorted(positions) == list(range(len(expected)))
    product = found @ convolution.kernel.numpy().reshape(-1, 2)
    np.testing.assert_allclose(product, expected[positions], atol=1e-5)
    _, some = patches(convolution, features, 7, np.random.default_rng(1))
    np.testing.assert_array_equal(some, found[:7])


# -- the fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1], ids=["read by a hidden layer", "read by the output"])
def test_a_combination_of_other_filters_is_not_missed(layer):
    network = new_network([3, 3])
    make_combination(network, layer, f1=0.7, f2=0.4)
    before = np.array(network.model(IMAGES))
    assert np.ptp(before) > 0.01
    state = network.state()
    network.disable(Filter(layer, 0))
    plain = np.abs(network.model(IMAGES) - before).max()
    network.restore(state)
    refitted(network, Filter(layer, 0))
    assert np.abs(network.model(IMAGES) - before).max() < 1e-4 < 0.01 < plain


def test_combinations_in_two_layers_are_not_missed():
    network = new_network([3, 4, 2])
    make_combination(network, 0, f1=0.7, f2=0.4)
    make_combination(network, 1, f2=1.5)
    before = np.array(network.model(IMAGES))
    refitted(network, Filter(1, 0), Filter(0, 0))
    assert network.filters_kept == (2, 3, 2)
    assert np.abs(network.model(IMAGES) - before).max() < 1e-4


def test_it_is_the_solution_of_numpy():
    """Against `lstsq` on windows that are cut by hand, with a closed output ReLU and a disabled filter."""
    network = new_network([4, 3])
    network.disable(Filter(0, 3))
    convolution = network.block(1).convolution
    convolution.bias.assign(convolution.bias - 0.2)  # so that its ReLU closes here and there
    bias = convolution.bias.numpy()
    read = np.array(network.features(1)(IMAGES))
    wanted = response(network, 1)
    assert 0.01 < (wanted < 0).mean() < 0.99
    padded = np.pad(read, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.stack(
        [padded[n, y : y + 3, x : x + 3] for n in range(3) for y in range(20) for x in range(24)]
    )
    system = np.hstack([windows[..., [0, 2]].reshape(len(windows), -1), np.ones((len(windows), 1))])
    solution = np.linalg.lstsq(system.astype(np.float64), wanted.reshape(-1, 3), rcond=None)[0]

    refitted(network, Filter(0, 1))
    assert network.active[0].tolist() == [True, False, True, False]
    kernel, found = convolution.get_weights()
    np.testing.assert_allclose(kernel[:, :, [0, 2]], solution[:-1].reshape(3, 3, 2, 3), atol=1e-4)
    np.testing.assert_allclose(found, solution[-1], atol=1e-4)
    assert not kernel[:, :, [1, 3]].any()
    assert not np.allclose(found, bias)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(0, 99), st.data())
def test_it_is_never_worse_than_plain_removal_and_touches_nothing_else(widths, seed, data):
    network = new_network(widths, seed)
    removed = [Filter(layer, data.draw(st.integers(0, width - 1))) for layer, width in enumerate(widths)]
    removed = data.draw(st.lists(st.sampled_from(removed), min_size=1, unique=True))
    for layer in range(1, len(widths)):  # another one that was disabled before, if one is left
        other = Filter(layer, (removed[0].index + 1) % widths[layer])
        if widths[layer] > 2 and other not in removed:
            network.disable(other)
    readers = sorted({filter.layer + 1 for filter in removed})
    old = network.state()
    wanted = [response(network, reader) for reader in readers]
    enabled_before = network.enabled()
    network.disable(*removed)
    plain = squared_error(network, readers[0], wanted[0])
    network.restore(old)
    refitted(network, *removed)

    columns = enabled_before[readers[0]]
    for filter in removed:
        assert not network.active[filter.layer][filter.index]
    assert sum(map(np.sum, enabled_before)) - sum(map(np.sum, network.enabled())) == len(removed)
    # Of the first reader: those behind read what has changed.
    error = np.square(response(network, readers[0]) - wanted[0])[..., columns].sum()
    assert error <= plain * (1 + 1e-6) + 1e-6
    for layer in range(len(widths) + 1):
        kernel, was = network.block(layer).convolution.kernel.numpy(), old.weights[2 * layer]
        if layer not in readers:
            assert_equal(network.block(layer).convolution.get_weights(), old.weights[2 * layer :][:2])
            continue
        inputs, outputs = network.enabled()[layer - 1], network.enabled()[layer]
        assert not kernel[:, :, ~inputs].any()
        np.testing.assert_array_equal(kernel[:, :, inputs][..., ~outputs], was[:, :, inputs][..., ~outputs])


def test_a_later_reader_makes_up_for_what_an_earlier_one_could_not():
    """Its error is at most that of its old weights behind the refitted layer."""
    network = new_network([3, 3], seed=7)
    wanted = response(network, 2)
    state = network.state()
    refitted(network, Filter(0, 0), Filter(1, 1))
    both = squared_error(network, 2, wanted)
    network.restore(state)
    refitted(network, Filter(0, 0))
    network.disable(Filter(1, 1))
    assert both < squared_error(network, 2, wanted)


def test_frozen_filters_stay_and_no_bias_is_needed():
    network = chain(conv(3), conv(3, use_bias=False), conv(1))
    network.freeze(Filter(1, 1))
    before = network.block(1).convolution.kernel.numpy()
    refitted(network, Filter(0, 2))
    kernel = network.block(1).convolution.kernel.numpy()
    changed = [not np.array_equal(kernel[:, :, :2, index], before[:, :, :2, index]) for index in range(3)]
    assert changed == [True, False, True]
    assert network.frozen() == [Filter(1, 1)]


@pytest.mark.parametrize(
    "reader",
    [[conv(2, strides=2)], [conv(2, padding="valid")], [conv(2, dilation_rate=2)]],
    ids=["strides", "valid padding", "dilation"],
)
def test_behind_followers_and_with_any_reader(reader):
    normalization = keras.layers.BatchNormalization()
    followers = [normalization, keras.layers.ReLU(), keras.layers.MaxPooling2D()]
    network = chain(conv(3, activation=None), *followers, *reader, conv(1))
    normalization.set_weights([np.random.default_rng(0).random(3) + 0.5 for _ in range(4)])
    wanted, kept, state = response(network, 1), normalization.get_weights(), network.state()
    network.disable(Filter(0, 1))
    plain = squared_error(network, 1, wanted)
    network.restore(state)
    refitted(network, Filter(0, 1))
    assert squared_error(network, 1, wanted) < plain
    assert_equal(normalization.get_weights(), kept)


def test_a_reader_of_zeros_only_learns_its_bias():
    network = new_network([2, 2])
    network.block(0).convolution.bias.assign([0.3, -100.0])
    wanted, old = response(network, 1), network.block(1).convolution.kernel.numpy()
    refitted(network, Filter(0, 0))
    np.testing.assert_array_equal(network.block(1).convolution.kernel[:, :, 1], old[:, :, 1])
    np.testing.assert_allclose(network.block(1).convolution.bias, wanted.mean(axis=(0, 1, 2)), atol=1e-5)
    network = chain(conv(2), conv(1, use_bias=False))
    network.block(0).convolution.bias.assign([0.3, -100.0])
    refitted(network, Filter(0, 0))
    assert not np.array(network.model(IMAGES)).any()


def test_the_same_random_numbers_give_the_same_weights_and_positions_are_shared_out():
    images = np.random.default_rng(1).integers(256, size=(2, 110, 110, 1), dtype=np.uint8)
    weights, outputs = [], []
    for seed in (0, 0, 1):  # 10,000 of 12,100 positions of each
        network = new_network([3, 2])
        refitted(network, Filter(0, 0), seed=seed, images=images)
        weights.append(network.block(1).convolution.kernel.numpy())
        outputs.append(np.array(network.model(IMAGES)))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert np.abs(outputs[0] - outputs[2]).mean() < 0.01 * outputs[0].mean()


# -- the better of the two -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "better"), [((2.0, 1.0), True), ((1.0, 1.0), False), ((1.0, float("nan")), False)], ids=str
)
def test_the_better_of_plain_removal_and_refit_stays(losses, better):
    plain, refit_network, network = (new_network([3, 3]) for _ in range(3))
    plain.disable(Filter(0, 1))
    refitted(refit_network, Filter(0, 1))
    measured, left = [], list(losses)

    def loss(measured_network: MaskedNetwork) -> float:
        measured.append(state_of(measured_network))
        return left.pop(0)

    rng, before = np.random.default_rng(0), network.state()
    network.disable(Filter(0, 1))
    assert refit_if_better(network, before, PICTURES, rng, loss) is better
    assert_equal(measured[0], state_of(plain))
    assert_equal(measured[1], state_of(refit_network))
    assert_equal(state_of(network), measured[better])
