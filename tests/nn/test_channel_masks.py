"""Masks in the weights: as the compact model would train, with no new trace."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from selfscale.nn.channel_masks import ChannelMasks
from selfscale.nn.graph import trace
from selfscale.nn.rewriting import rewrite


def network(**options):
    """A residual network in float64, with normalization between what is disabled and who reads it."""
    keras.utils.set_random_seed(0)
    with_type = {"dtype": "float64", **options}
    inputs = keras.Input((6, 6, 2), dtype="float64")
    x = layers.Conv2D(6, 3, padding="same", name="first", **with_type)(inputs)
    x = layers.ReLU(dtype="float64")(layers.BatchNormalization(name="normal", dtype="float64")(x))
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="second", **with_type)(x)
    x = layers.Concatenate(dtype="float64")([layers.Add(dtype="float64")([x, y]), y])
    x = layers.GlobalAveragePooling2D(dtype="float64")(x)
    return keras.Model(inputs, layers.Dense(2, name="last", **with_type)(x))


def trainer(model, optimizer, masks=None):
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((6, 8, 6, 6, 2)), rng.standard_normal((6, 8, 2))
    traces = []

    @tf.function
    def step(x, y):
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2) + sum(model.losses)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        if masks:
            masks.apply(optimizer, gradients)
        else:
            optimizer.apply(gradients, model.trainable_variables)

    def train(steps):
        for i in range(steps):
            step(batches[0][i % 6], batches[1][i % 6])
        return len(traces)

    return train


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "clipped": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}


@pytest.mark.parametrize(
    ("name", "regularized"),
    [("adam", False), ("clipped", False), ("clipped", True), ("momentum", False), ("decay", True)],
)
def test_a_masked_model_trains_as_the_compact_one(name, regularized):
    model = network(kernel_regularizer="l2") if regularized else network()
    graph = trace(model)
    masks = ChannelMasks(model, graph)
    train = trainer(model, optimizer := OPTIMIZERS[name](), masks)
    traces = train(3)
    masks.disable(0, [1, 4])
    masks.freeze(0, [2])
    for variable in optimizer.variables:  # as after every alteration: a fresh optimizer
        variable.assign(np.zeros(variable.shape, variable.dtype))
    optimizer.learning_rate.assign(0.01)
    compact = rewrite(model, graph, masks.keep)
    others = ChannelMasks(compact, trace(compact))
    others.freeze(0, [1])
    beside = trainer(compact, again := OPTIMIZERS[name](), others)
    again.learning_rate.assign(0.01)
    assert train(8) == traces  # the same compiled step as before
    beside(8)
    images = np.random.default_rng(1).standard_normal((4, 6, 6, 2))
    np.testing.assert_allclose(model(images), compact(images), atol=1e-9 if not regularized else 1e-8)


def sequences():
    """Attention, recurrent units and group normalization, in float64."""
    keras.utils.set_random_seed(0)
    exact = {"dtype": "float64"}
    inputs = keras.Input((6, 2), **exact)
    x = layers.GroupNormalization(3, **exact)(layers.Conv1D(6, 2, **exact)(inputs))
    x = layers.Add(**exact)([x, layers.MultiHeadAttention(3, 2, value_dim=4, **exact)(x, x)])
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, **exact), **exact)(x)
    x = layers.TimeDistributed(layers.Dense(5, activation="tanh", **exact), **exact)(x)
    return keras.Model(inputs, layers.Dense(2, **exact)(layers.GRU(4, **exact)(x)))


def test_sequences_train_as_the_compact_model():
    model, rng = sequences(), np.random.default_rng(0)
    graph = trace(model)
    masks = ChannelMasks(model, graph)
    for group in graph.removable():
        masks.disable(group.index, [group.size - 2])
    compact = rewrite(model, graph, masks.keep)
    others = ChannelMasks(compact, trace(compact))
    x, y = rng.standard_normal((8, 6, 2)), rng.standard_normal((8, 2))
    for network, its in ((model, masks), (compact, others)):
        optimizer = keras.optimizers.Adam(0.01, global_clipnorm=0.1)
        for _ in range(6):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((network(x, training=True) - y) ** 2)
            its.apply(optimizer, tape.gradient(loss, [v.value for v in network.trainable_variables]))
    assert {each.name.rpartition("/")[2] for each in graph.removable()} >= {"heads", "values"}
    np.testing.assert_allclose(model(x), compact(x), atol=1e-9)


def test_disabled_channels_are_read_by_zeros_and_stand_still_whatever_the_optimizer_has_gathered():
    model = network(kernel_regularizer="l2", kernel_constraint="max_norm")
    masks = ChannelMasks(model, trace(model))
    train = trainer(model, keras.optimizers.AdamW(0.05, weight_decay=0.1), masks)
    train(4)
    masks.disable(0, [1])
    masks.freeze(0, [2])
    before = {v.path: v.numpy().copy() for v in model.variables}
    train(4)
    for layer in ("first", "second"):
        kernel = model.get_layer(layer).kernel
        np.testing.assert_array_equal(kernel[..., 1:3], before[kernel.path][..., 1:3])
        assert np.abs(kernel[..., 3] - before[kernel.path][..., 3]).max() > 0
    assert not model.get_layer("second").kernel[:, :, 1].numpy().any()
    assert not model.get_layer("last").kernel.numpy()[[1, 7]].any()
    mean = model.get_layer("normal").moving_mean
    np.testing.assert_array_equal(mean[2], before[mean.path][2])


def test_a_state_is_restored_with_weights_and_masks():
    model = network()
    masks = ChannelMasks(model, trace(model))
    masks.disable(0, [0])
    state = masks.state()
    train = trainer(model, keras.optimizers.Adam(0.01), masks)
    masks.disable(0, [3, 5])
    masks.freeze(0, [1])
    train(2)
    masks.restore(state)
    np.testing.assert_array_equal(masks.keep[0], np.arange(6) != 0)
    for weight, value in zip(model.weights, state.weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    train(2)
    assert np.abs(model.get_layer("first").kernel - state.weights[0])[..., [1, 3]].min() > 0


def test_reinitializing_redraws_what_computes_a_channel_and_nothing_else():
    model = network(kernel_initializer=keras.initializers.RandomUniform(5, 6), bias_initializer="ones")
    masks = ChannelMasks(model, trace(model))
    model.get_layer("first").set_weights([0 * w for w in model.get_layer("first").get_weights()])
    masks.reinitialize(0, [2], np.random.default_rng(0))
    kernel, bias = model.get_layer("first").get_weights()
    assert (kernel[..., 2] >= 5).all() and bias[2] == 1
    assert not np.delete(kernel, 2, -1).any() and not np.delete(bias, 2).any()


def test_the_last_channel_and_pinned_ones_cannot_be_disabled():
    model = network()
    masks = ChannelMasks(model, trace(model))
    with pytest.raises(ValueError, match="must keep one"):
        masks.disable(0, range(6))
    with pytest.raises(ValueError, match="pinned: an output"):
        masks.disable(1, [0])
    assert not masks.keep
