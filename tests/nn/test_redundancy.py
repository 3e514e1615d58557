from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscale.decisions import Filter
from selfscale.nn.fcn import blocks
from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant, duplicate, find, merge, silent

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (11, 8, 9, 1), dtype=np.uint8)  # more than a batch, and not whole batches
IMAGES = RNG.random((3, 13, 14, 1), dtype=np.float32)
WIDTHS = st.lists(st.integers(2, 5), min_size=1, max_size=3)
SEEDS = st.integers(0, 10_000)
HOMOGENEOUS = st.sampled_from(["relu", "linear", "leaky_relu"])


def random_network(widths: list[int], rng: np.random.Generator, activation: str = "relu") -> MaskedNetwork:
    """Random weights and biases, and an output without ReLU: one that cannot hide a difference."""
    x = inputs = keras.Input((None, None, 1))
    for width in widths:
        x = keras.layers.Conv2D(width, 3, padding="same", activation=activation)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(x))
    model.set_weights([rng.normal(size=weight.shape) * 0.4 for weight in model.get_weights()])
    return MaskedNetwork(model)


def disable_some(network: MaskedNetwork, rng: np.random.Generator, keep: set[Filter]) -> None:
    for candidate in network.removable():
        if candidate not in keep and network.active[candidate.layer].sum() > 2 and rng.random() < 0.5:
            network.disable(candidate)


def plant(network: MaskedNetwork, filter: Filter, twin: Filter, factor: float) -> None:
    """Make a filter `factor` times its twin, but for what it reads from disabled filters."""
    kernel, bias = (np.array(weight) for weight in network.blocks[filter.layer].convolution.get_weights())
    reads = network.active[filter.layer - 1] if filter.layer else np.ones(1, bool)
    kernel[:, :, reads, filter.index] = factor * kernel[:, :, reads, twin.index]
    bias[filter.index] = factor * bias[twin.index]
    network.blocks[filter.layer].convolution.set_weights([kernel, bias])


def two_filters(widths: list[int], rng: np.random.Generator) -> tuple[Filter, Filter]:
    layer = int(rng.integers(len(widths)))
    one, two = rng.choice(widths[layer], 2, replace=False).tolist()
    return Filter(layer, one), Filter(layer, two)


def plain_copy(network: MaskedNetwork) -> keras.Model:
    """An independent reference without switches: no kernel reads a disabled filter."""
    copy = keras.models.clone_model(network.model)
    copy.set_weights(network.model.get_weights())
    for active, reader in zip(network.active, blocks(copy)[1:], strict=True):
        kernel = reader.convolution.kernel.numpy()
        kernel[:, :, ~active] = 0
        reader.convolution.kernel.assign(kernel)
    return copy


def plain_output(network: MaskedNetwork, images: np.ndarray = IMAGES) -> np.ndarray:
    return np.asarray(plain_copy(network)(images))


def find_in(network: MaskedNetwork, images: np.ndarray = TRAIN) -> Redundant | None:
    return find(network, Probe(network, Split(images, images), "mae"), images)


def assert_close(output: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, exponent=st.floats(-3, 3), activation=HOMOGENEOUS)
def test_a_duplicate_of_any_scale_is_found_and_merged_without_a_trace(widths, seed, exponent, activation):
    rng, factor = np.random.default_rng(seed), 10.0**exponent
    network = random_network(widths, rng, activation)
    pair = two_filters(widths, rng)
    disable_some(network, rng, keep=set(pair))
    plant(network, *pair, factor)
    expected, kept = plain_output(network), sum(network.filters_kept)

    redundant = find_in(network)
    assert redundant is not None and redundant.twin is not None
    assert {redundant.filter, redundant.twin} == set(pair)
    assert redundant.factor == pytest.approx(min(factor, 1 / factor), rel=1e-6)
    merge(network, redundant)
    assert not network.active[redundant.filter.layer][redundant.filter.index]
    assert sum(network.filters_kept) == kept - 1
    assert_close(network.model(IMAGES), expected)
    assert_close(plain_output(network), expected)
    assert duplicate(network, redundant.filter.layer) is None


@settings(max_examples=10, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, exponent=st.floats(-3, 3), activation=HOMOGENEOUS)
def test_a_negative_multiple_is_no_duplicate(widths, seed, exponent, activation):
    rng = np.random.default_rng(seed)
    network = random_network(widths, rng, activation)
    pair = two_filters(widths, rng)
    plant(network, *pair, -(10.0**exponent))
    assert all(duplicate(network, layer) is None for layer in range(len(widths)))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, change=st.floats(1e-4, 1), entry=st.integers(0, 9))
def test_a_filter_with_one_weight_off_is_no_duplicate(seed, change, entry):
    """Also where that weight is small beside the others, as it is beside the bias here."""
    network = random_network([3], np.random.default_rng(seed))
    kernel, bias = (np.array(weight) for weight in network.blocks[0].convolution.get_weights())
    bias[:] = 1000
    kernel[..., 2], bias[2] = kernel[..., 0] / 4, bias[0] / 4
    network.blocks[0].convolution.set_weights([kernel, bias])
    assert duplicate(network, 0) == Redundant(Filter(0, 2), Filter(0, 0), 0.25)
    weights = bias if entry == 9 else kernel.reshape(9, 3)[entry]
    weights[2] *= 1 + change
    network.blocks[0].convolution.set_weights([kernel, bias])
    assert duplicate(network, 0) is None


def test_weights_that_read_enabled_filters_count():
    rng = np.random.default_rng(1)
    network = random_network([3, 2], rng)
    network.disable(Filter(0, 1))
    plant(network, Filter(1, 0), Filter(1, 1), 0.5)
    assert duplicate(network, 1) == Redundant(Filter(1, 0), Filter(1, 1), pytest.approx(0.5))
    kernel = network.blocks[1].convolution.kernel.numpy()
    kernel[0, 0, 2, 0] += 0.1
    network.blocks[1].convolution.kernel.assign(kernel)
    assert duplicate(network, 1) is None


def test_layers_keep_their_numbers_when_others_were_removed():
    network = random_network([3, 4], np.random.default_rng(2))
    network.disable(Filter(0, 1))
    network.block(0).convolution.bias.assign([5, 5, 5])
    plant(network, Filter(1, 3), Filter(1, 0), 0.5)
    network.block(1).convolution.bias.assign([100, -1e4, 100, 50])
    numbered = MaskedNetwork(network.model, widths=[5, 3, 2, 4], layers=[1, 3])
    numbered.disable(Filter(1, 1))
    expected = np.array(network.model(IMAGES))
    redundant = duplicate(numbered, 3)
    assert redundant == Redundant(Filter(3, 3), Filter(3, 0), pytest.approx(0.5))
    merge(numbered, redundant)
    assert_close(numbered.model(IMAGES), expected)
    assert find_in(numbered) == Redundant(Filter(3, 1))
    remove_all(numbered)
    assert numbered.filters_kept == (0, 2, 0, 2)
    assert_close(numbered.model(IMAGES), expected)


@settings(max_examples=15, deadline=None)
@given(widths=WIDTHS, seed=SEEDS)
def test_a_filter_that_never_fires_is_found_and_leaves_nothing_behind(widths, seed):
    rng = np.random.default_rng(seed)
    network = random_network(widths, rng)
    planted = two_filters(widths, rng)[0]
    disable_some(network, rng, keep={planted})
    variable = network.blocks[planted.layer].convolution.bias
    bias = variable.numpy()
    bias[planted.index] = -1e4
    variable.assign(bias)
    images = TRAIN / np.float32(255)
    copy = plain_copy(network)
    hidden = [np.asarray(keras.Model(copy.input, layer.output)(images)) for layer in copy.layers[1:-1]]
    never_fires = [f for f in network.removable() if not hidden[f.layer][..., f.index].any()]
    assert planted in never_fires

    assert silent(network, TRAIN, network.removable()) == never_fires
    redundant = find_in(network)
    assert redundant == Redundant(never_fires[0])
    switched, plain = np.array(network.model(images)), plain_output(network, images)
    merge(network, redundant)
    np.testing.assert_array_equal(network.model(images), switched)
    np.testing.assert_array_equal(plain_output(network, images), plain)
    assert redundant.filter not in network.removable()


def test_a_filter_that_fires_at_one_pixel_of_the_last_image_stays():
    images = np.minimum(RNG.integers(0, 256, (41, 6, 7, 1), dtype=np.uint8), 100)
    images[-1, 0, -1] = 255
    network = random_network([3], np.random.default_rng(0))
    kernel, bias = (np.array(weight) for weight in network.blocks[0].convolution.get_weights())
    kernel[..., 1], kernel[1, 1, 0, 1], bias[:] = 0, 1, (5, -0.5, 5)
    network.blocks[0].convolution.set_weights([kernel, bias])
    probe = Probe(network, Split(images, images), "mae")
    assert probe.activations()[0][1] == 0  # it looks at the first 32
    assert find(network, probe, images) is None
    images[-1, 0, -1] = 100
    assert find(network, probe, images) == Redundant(Filter(0, 1))


def remove_all(network: MaskedNetwork) -> None:
    while (redundant := find_in(network)) is not None:
        merge(network, redundant)


def test_the_last_filter_of_a_layer_is_never_chosen():
    network = random_network([3, 4], np.random.default_rng(3))
    network.blocks[0].convolution.bias.assign([-1e4] * 3)
    for index in (0, 1, 3):
        plant(network, Filter(1, index), Filter(1, 2), index + 0.5)
    expected = plain_output(network)
    remove_all(network)
    assert network.filters_kept == (1, 1)
    assert_close(network.model(IMAGES), expected)


def network_with(*followers: keras.layers.Layer, activation: object = None) -> MaskedNetwork:
    """Two filters, the second of them three times the first."""
    x = inputs = keras.Input((None, None, 1))
    for layer in (keras.layers.Conv2D(2, 3, padding="same", activation=activation), *followers):
        x = layer(x)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(x))
    network = MaskedNetwork(model)
    plant(network, Filter(0, 1), Filter(0, 0), 3.0)
    return network


@pytest.mark.parametrize(
    ("activation", "followers"),
    [
        ("sigmoid", ()),
        ("relu6", ()),
        (keras.layers.ReLU(max_value=1.0), ()),
        (None, (keras.layers.BatchNormalization(),)),
        ("relu", (keras.layers.MaxPooling2D(), keras.layers.BatchNormalization())),
        (None, (keras.layers.Activation("elu"),)),
        (None, (keras.layers.ReLU(max_value=6.0),)),
        (None, (keras.layers.ReLU(threshold=0.1),)),
    ],
)
def test_a_block_that_does_not_carry_a_scale_through_is_not_merged(activation, followers):
    assert duplicate(network_with(*followers, activation=activation), 0) is None


@pytest.mark.parametrize(
    "followers",
    [
        (keras.layers.ReLU(negative_slope=0.2), keras.layers.MaxPooling2D()),
        (keras.layers.AveragePooling2D(2), keras.layers.LeakyReLU(), keras.layers.Dropout(0.5)),
        (keras.layers.UpSampling2D(interpolation="bilinear"), keras.layers.Activation("relu")),
    ],
)
def test_layers_that_carry_a_scale_through_are_merged(followers):
    network = network_with(*followers)
    expected = plain_output(network)
    redundant = duplicate(network, 0)
    assert redundant == Redundant(Filter(0, 0), Filter(0, 1), pytest.approx(1 / 3))
    merge(network, redundant)
    assert_close(network.model(IMAGES), expected)


def test_a_convolution_without_bias_is_compared_by_its_kernel():
    x = inputs = keras.Input((None, None, 2))
    x = keras.layers.Conv2D(2, 3, use_bias=False, activation="relu")(x)
    network = MaskedNetwork(keras.Model(inputs, keras.layers.Conv2D(1, 1)(x)))
    convolution = network.blocks[0].convolution
    kernel = convolution.kernel.numpy()
    kernel[..., 1] = kernel[..., 0] / 8
    convolution.kernel.assign(kernel)
    assert duplicate(network, 0) == Redundant(Filter(0, 1), Filter(0, 0), 0.125)
