"""Channels of any model: random masks against zeroed readers, and what must not be removed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from selfscale.nn.graph import trace
from selfscale.nn.graph_walk import every_layer
from selfscale.nn.rewriting import random_inputs, rewrite


def random_weights(model, seed=0):
    """Give all vectors, like biases and statistics, other values than the initial ones."""
    rng = np.random.default_rng(seed)
    for _, layer in every_layer(model):
        for weight in layer.weights:
            if len(weight.shape) == 1 and "float" in weight.dtype:
                weight.assign(weight.numpy() + 0.1 + 0.2 * rng.random(weight.shape))
    return model


def random_masks(graph, seed, share=0.4):
    rng = np.random.default_rng(seed)
    keep = {}
    for group in graph.groups:
        if group.removable:
            mask = rng.random(group.size) > share
            mask[rng.integers(group.size)] = True
            keep[group.index] = mask
    return keep


def zeroed(model, graph, keep):
    """Return a copy of the model with zeros wherever a masked channel is read: the reference."""
    copy = keras.models.clone_model(model)
    found = dict(every_layer(copy))
    for path, layer in every_layer(model):
        found[path].set_weights(layer.get_weights())
    for index, mask in keep.items():
        for part in graph.groups[index].readers:
            weight = getattr(found[part.layer], part.weight)
            value = weight.numpy()
            for channel in np.flatnonzero(~mask):
                rows = [slice(None)] * value.ndim
                rows[part.axis] = part.indices[channel]
                value[tuple(rows)] = 0
            weight.assign(value)
    return copy


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.Add()([x, y]), y])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


@pytest.mark.parametrize("make", [residual])
@pytest.mark.parametrize("seed", range(3))
def test_the_compact_model_equals_the_masked_one(make, seed):
    model = random_weights(make(), seed)
    graph = trace(model)
    keep = random_masks(graph, seed)
    compact = rewrite(model, graph, keep)
    inputs = random_inputs(model, seed + 1)
    expected = keras.tree.flatten(zeroed(model, graph, keep)(inputs))
    for a, b in zip(expected, keras.tree.flatten(compact(inputs)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())
    assert graph.cost(keep).parameters == compact.count_params() < model.count_params()
