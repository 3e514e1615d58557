from __future__ import annotations

import keras
import numpy as np
import pytest

from selfscale.errors import UserError
from selfscale.nn.fcn import blocks, build, calibrate, filters_per_layer, size, to_image


def test_the_thesis_network_has_the_hand_counted_size():
    model = build([5, 5])
    # 5x5 kernels: 1->5, 5->5, 5->1, and 11 biases.
    assert size(model) == (25 * 5 + 25 * 25 + 25 * 5 + 11, 875.0)
    assert filters_per_layer(model) == (5, 5)
    assert [layer.activation.__name__ for layer in model.layers[1:]] == ["relu"] * 3


def test_the_size_of_what_is_left_is_the_size_of_that_network():
    assert size(build([5, 5]), [3, 2]) == size(build([3, 2]))


def test_strides_pooling_and_upsampling_count_per_pixel_of_the_input():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 36 for a quarter of the pixels
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(2, 1)(x)  # 8 for a sixteenth
    x = keras.layers.UpSampling2D(4)(x)
    x = keras.layers.Conv2D(1, 1)(x)  # 2 for each
    model = keras.Model(inputs, x)
    assert size(model) == (model.count_params(), 36 / 4 + 8 / 16 + 2)


def test_any_height_and_width_and_the_same_out():
    model = build([2], kernel=5)
    for shape in ((1, 7, 31, 1), (2, 64, 16, 1)):
        assert model(np.zeros(shape, np.float32)).shape == shape


def test_truncated_normal_initialization_and_seed():
    first, again, other = (build([64], mean=0.5, deviation=0.1, seed=seed) for seed in ((3,), (3,), (4,)))
    kernel = first.layers[1].kernel.numpy()
    assert np.abs(kernel - 0.5).max() <= 0.2 + 1e-6  # values beyond two deviations are redrawn
    assert abs(kernel.mean() - 0.5) < 0.01
    np.testing.assert_array_equal(kernel, again.layers[1].kernel.numpy())
    assert not np.array_equal(kernel, other.layers[1].kernel.numpy())


def test_calibration_starts_close_around_the_level_whatever_the_weights():
    images = np.random.default_rng(0).random((3, 30, 30, 1), dtype=np.float32)
    for seed in range(5):
        model = build([5, 5], seed=(seed,))
        calibrate(model, images, 0.2)
        output = np.asarray(model(images))
        assert output.mean() == pytest.approx(0.2, abs=0.01)
        assert output.min() > 0  # no pixel starts dead
        assert output.std() < 0.1


def test_output_as_image_is_scaled_clipped_and_rounded():
    values = np.array([-0.1, 0.0, 0.5, 1.0, 3.0])
    image = to_image(values)
    assert image.dtype == np.uint8
    assert image.tolist() == [0, 0, 128, 255, 255]


def test_blocks_are_found_by_inspection():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(2, 1)(x)
    found = blocks(keras.Model(inputs, x))
    assert [(block.filters, len(block.followers)) for block in found] == [(4, 2), (2, 0)]


def branching(inputs):
    x = keras.layers.Conv2D(1, 3, padding="same")(inputs)
    return keras.layers.Add()([x, inputs])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda x: keras.layers.Conv2D(2, 3, groups=2)(keras.layers.Conv2D(2, 3)(x)), "not supported"),
        (lambda x: keras.layers.Dense(1)(keras.layers.Conv2D(1, 3)(x)), "not supported"),
        (lambda x: keras.layers.ReLU()(x), "not supported"),
        (branching, "plain chain"),
    ],
)
def test_what_is_no_chain_of_plain_layers_is_refused(layers, message):
    inputs = keras.Input((None, None, 1))
    with pytest.raises(UserError, match=message):
        blocks(keras.Model(inputs, layers(inputs)))
