"""Blocks of pixels: outputs and gradients are those of the plain network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from selfscale.nn import blocking
from selfscale.nn.block_shape import PLAIN, Shape, best_shape, multiplications
from selfscale.nn.blocking import Chain
from selfscale.nn.fcn import blocks as blocks_of
from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork

SHAPES = [Shape(*pair) for pair in ((2, 2), (1, 2), (2, 1), (3, 2), (1, 3), (4, 4))]


@pytest.fixture(autouse=True)
def _allowed():
    yield
    blocking.allow(True)


def network(rng: np.random.Generator, batch_norm: bool = False) -> MaskedNetwork:
    """A random chain, of kernels of any sides and dilations, with a disabled filter."""
    x = inputs = keras.Input((None, None, 1))
    for filters in [*rng.integers(2, 5, size=rng.integers(1, 3)).tolist(), 1]:
        x = keras.layers.Conv2D(
            filters,
            rng.integers(1, 8, size=2).tolist(),
            padding="same",
            activation=rng.choice(["relu", "tanh", "linear"]),
            dilation_rate=rng.choice([1, 1, 2], size=2).tolist(),
            use_bias=bool(rng.integers(2)),
        )(x)
        if batch_norm:
            x = keras.layers.BatchNormalization()(x)
    masked = MaskedNetwork(keras.Model(inputs, x))
    for weight in masked.model.weights:
        weight.assign(np.abs(rng.normal(0.2, 0.3, weight.shape)))
    masked.disable(masked.removable()[0])
    return masked


def chain(model: keras.Model, shape: Shape) -> Chain:
    found = Chain(model)
    assert found.reason is None
    found.shape = shape
    return found


def outcome(run, weights, images, targets):
    with tf.GradientTape() as tape:
        output = run(images)
        loss = tf.reduce_mean(tf.square(output - targets))
    return output, tape.gradient(loss, weights)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_outputs_and_gradients_equal_those_of_the_plain_network(seed: int, shape: Shape):
    rng = np.random.default_rng((seed, *shape))
    masked = network(rng, batch_norm=seed == 3)
    training = seed == 3
    size = (12, 24) if training else (int(rng.integers(5, 14)), int(rng.integers(5, 14)))
    images, targets = rng.random((2, 2, *size, 1), dtype=np.float32)
    weights = [weight.value for weight in masked.model.trainable_variables]
    blocks = chain(masked.model, shape)
    moving = masked.model.get_weights()

    output, gradients = outcome(lambda x: blocks.on_images(x, training), weights, images, targets)
    changed = masked.model.get_weights()
    masked.model.set_weights(moving)
    expected, plain = outcome(lambda x: masked.model(x, training=training), weights, images, targets)

    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(output, expected, atol=1e-5 * scale)
    for found, wanted in zip(gradients, plain, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))
    for found, wanted in zip(changed, masked.model.get_weights(), strict=True):  # of BatchNormalization
        np.testing.assert_allclose(found, wanted, atol=1e-5 * scale)


def test_sizes_that_are_known_late_are_padded():
    rng = np.random.default_rng(0)
    masked = network(rng)
    blocks = chain(masked.model, Shape(2, 3))
    run = tf.function(blocks.on_images, input_signature=[tf.TensorSpec((None, None, None, 1))])
    for size in ((7, 11), (8, 12), (1, 1)):
        images = rng.random((1, *size, 1), dtype=np.float32)
        np.testing.assert_allclose(run(images), masked.model(images), atol=1e-5)


def test_blocks_are_put_back_together():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    blocks = chain(build([2]), Shape(2, 3))
    found = blocks.to_blocks(tf.constant(images))
    assert found.shape == (2, 2, 2, 18)
    np.testing.assert_array_equal(found[1, 1, 0], images[1, 2:4, 0:3].ravel())
    np.testing.assert_array_equal(blocks.to_images(found), images)


def test_the_shape_has_the_fewest_multiplications():
    """By hand: 5, 5 filters of 5x5 on 2x2 pixels are kernels of 3x3 from 4, 20, 20 to 20, 20, 4 channels."""
    small = blocks_of(build([5, 5]))
    assert multiplications(small, PLAIN) == 25 * (1 + 5 + 5) * 16
    assert multiplications(small, Shape(2, 2)) == 9 * (4 * 32 + 20 * 32 + 20 * 16) / 4
    assert best_shape(small, (64, 64)) == (2, 2)
    assert best_shape(small, (63, 63)) == (1, 3)  # of what divides both
    assert best_shape(small, (61, 67)) == PLAIN
    assert best_shape(small, (None, None)) == (2, 2)
    assert str(Chain(build([5, 5]))) == "runs on blocks of 2x2 pixels"
    assert str(Chain(build([64, 64]))) == "runs on images: blocks of pixels need no fewer multiplications"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (keras.layers.Conv2D(2, 3, strides=2, padding="same", name="c"), "'c' has strides"),
        (keras.layers.Conv2D(2, 3, name="c"), "'c' has strides, groups, or no padding"),
        (keras.layers.MaxPooling2D(name="p"), "'p' changes the resolution"),
        (keras.layers.Dropout(0.5, name="d"), "'d' draws numbers"),
        (keras.layers.Activation("softmax", name="s"), "'s' has an activation that mixes channels"),
        (
            keras.layers.Conv2D(2, 3, padding="same", dtype="mixed_float16", name="h"),
            "'h' computes in float16",
        ),
        (keras.layers.Conv2DTranspose(2, 3, name="t"), "'t' (Conv2DTranspose) is not supported"),
    ],
)
def test_other_networks_run_the_plain_way_and_say_why(layer, reason):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(3, 3, padding="same")(inputs)
    model = keras.Model(inputs, layer(x))
    found = Chain(model)
    assert str(found).startswith("runs on images: ")
    assert reason in str(found)
    images = np.random.default_rng(0).random((1, 8, 8, 1), dtype=np.float32)
    np.testing.assert_array_equal(found.on_images(images), model(images))


def test_blocks_can_be_turned_off():
    blocking.allow(False)
    found = Chain(build([5, 5]))
    assert (found.shape, found.reason) == (PLAIN, "execution.blocks is false")
