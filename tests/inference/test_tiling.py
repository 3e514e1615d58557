"""Tiles against the whole image: networks of random depths, kernels, dilations and paddings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from selfscale.inference.tiling import ReceptiveField, receptive_field, tiled, windows
from selfscale.nn.fcn import build, to_image


def chain(convolutions, seed=0):
    """A network of random weights; each convolution is its kernel's height and width, dilation and padding.

    In double precision, where sums in another order differ by far less than anything that leaks in.
    """
    x = inputs = keras.Input((None, None, 1), dtype="float64")
    for position, (height, width, dilation, padding) in enumerate(convolutions):
        x = keras.layers.Conv2D(
            1 if position == len(convolutions) - 1 else 3,
            (height, width),
            dilation_rate=dilation,
            padding=padding,
            activation="tanh",
            dtype="float64",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=seed + position),
            bias_initializer=keras.initializers.RandomNormal(seed=seed + position),
        )(x)
    return keras.Model(inputs, x)


def as_function(model):
    """Of arrays H,W."""
    return lambda image: np.asarray(model(image[None, ..., None] / np.float32(255)))[0, ..., 0]


def seen(model, side=41):
    """The receptive field along both axes, measured: where the output changes when one input pixel does."""
    image = np.zeros((1, side, side, 1), np.float32)
    changed = image.copy()
    changed[0, side // 2, side // 2] = 1
    rows, columns = np.nonzero(np.asarray(model(changed) - model(image))[0, ..., 0])
    return [(side // 2 - places.min(), places.max() - side // 2) for places in (rows, columns)]


CONVOLUTION = st.tuples(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["same", "same", "valid"])
)


@settings(max_examples=40, deadline=None, phases=(Phase.reuse, Phase.generate))  # shrinking takes minutes
@given(
    st.lists(CONVOLUTION, min_size=1, max_size=4),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(5, 40),
    st.integers(0, 2**16),
)
def test_tiles_give_what_the_whole_gives(convolutions, shape, extra, seed):
    model = chain(convolutions, seed)
    axes = receptive_field(model)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    side = max(axis.before + axis.after for axis in axes) + extra
    if any(length <= axis.lost for length, axis in zip(shape, axes, strict=True)):
        with pytest.raises(ValueError, match="nothing is left"):
            tiled(lambda window: window, image, axes, side)
        return
    whole, shapes = as_function(model)(image), set()

    def network(window):
        shapes.add(window.shape)
        return as_function(model)(window)

    result = tiled(network, image, axes, side)
    np.testing.assert_allclose(result, whole, rtol=0, atol=1e-12)
    assert shapes == {tuple(min(side, length) for length in shape)}


@pytest.mark.parametrize(
    "convolutions",
    [
        [(5, 5, 1, "same")] * 3,
        [(4, 3, 1, "same"), (2, 5, 2, "same")],
        [(3, 3, 1, "valid"), (3, 1, 3, "same")],
    ],
)
def test_the_receptive_field_is_what_can_be_measured(convolutions):
    model = chain(convolutions)
    # A pixel that is `before` the output pixel's place changes the output `before` pixels behind itself.
    assert [(axis.after, axis.before) for axis in receptive_field(model)] == seen(model)


@pytest.mark.parametrize(("widths", "kernel", "side"), [([5, 5], 5, 64), ([16, 8, 8], 3, 50), ([3], 7, 33)])
def test_networks_of_the_pipeline_give_the_picture_of_the_whole(widths, kernel, side):
    model = build(widths, kernel=kernel, deviation=0.3)
    image = np.random.default_rng(0).integers(0, 256, (231, 187), np.uint8)
    result = tiled(as_function(model), image, receptive_field(model), side)
    assert result.dtype == np.float32
    whole = as_function(model)(image)
    np.testing.assert_allclose(result, whole, rtol=0, atol=1e-6 * whole.max())
    np.testing.assert_array_equal(to_image(result), to_image(whole))


def test_the_thesis_network_sees_six_pixels():
    assert receptive_field(build([5, 5])) == (ReceptiveField(6, 6, 0), ReceptiveField(6, 6, 0))


def test_one_pixel_less_overlap_would_be_wrong():
    model = build([2, 2], kernel=3, deviation=0.5, seed=(3,))
    image = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    whole = as_function(model)(image)
    right = tiled(as_function(model), image, (ReceptiveField(3, 3), ReceptiveField(3, 3)), 20)
    np.testing.assert_allclose(right, whole, atol=1e-5)
    for less in ((ReceptiveField(2, 3), ReceptiveField(3, 3)), (ReceptiveField(3, 3), ReceptiveField(3, 2))):
        assert np.abs(tiled(as_function(model), image, less, 20) - whole).max() > 0.01


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(1, 3, strides=2),
        keras.layers.MaxPooling2D(2),
        keras.layers.AveragePooling2D(2),
        keras.layers.UpSampling2D(2),
    ],
)
def test_a_changed_resolution_has_no_receptive_field(layer):
    inputs = keras.Input((None, None, 1))
    x = layer(keras.layers.Conv2D(1, 3)(inputs))
    assert receptive_field(keras.Model(inputs, x)) is None


def test_what_mixes_pixels_otherwise_has_no_receptive_field():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(keras.layers.Conv2D(1, 3)(inputs))
    assert receptive_field(keras.Model(inputs, x)) is None


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_windows_cover_each_output_pixel_once_with_all_that_it_sees(length, extra, before, same, lost):
    axis = ReceptiveField(before, same + lost, lost)
    done = 0
    for window in windows(length, before + same + lost + extra, axis):
        assert window.first == done < window.last
        assert window.start <= max(0, window.first - before)
        assert window.stop >= min(length, window.last + axis.after)
        done = window.last
    assert done == max(0, length - lost)


def test_a_window_within_the_receptive_field_is_refused():
    with pytest.raises(ValueError, match="not larger than the receptive field"):
        list(windows(100, 12, ReceptiveField(6, 6)))
