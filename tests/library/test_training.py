from __future__ import annotations

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from selfscale.library.examples import Batch
from selfscale.library.training import ChannelTrainer
from selfscale.nn.channel_masks import ChannelMasks
from selfscale.nn.graph import trace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def trained(optimizer: keras.optimizers.Optimizer, rate: float) -> list[np.ndarray]:
    model = network()
    masks = ChannelMasks(model, trace(model))
    trainer = ChannelTrainer(model, masks, optimizer, "sparse_categorical_crossentropy")
    batch = Batch(tf.constant(X), tf.constant(Y))
    trainer.session(itertools.repeat(batch), 7, (0,), rate)
    return model.get_weights()


def test_a_session_at_a_third_of_the_rate_is_one_of_an_optimizer_of_that_rate():
    third, other = trained(keras.optimizers.SGD(0.3), 1 / 3), trained(keras.optimizers.SGD(0.1), 1.0)
    for one, another in zip(third, other, strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-5)
