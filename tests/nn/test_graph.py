"""Channels of any model: random masks against zeroed readers, and what must not be removed."""

from __future__ import annotations

from operator import attrgetter

import keras
import numpy as np
import pytest
from graph_models import MODELS, Shift
from keras import layers

from selfscale.nn import graph_recording, graph_tracing
from selfscale.nn.graph import trace
from selfscale.nn.graph_growth import grow, growable
from selfscale.nn.graph_rules import register_rule
from selfscale.nn.graph_walk import every_layer
from selfscale.nn.rewriting import random_inputs, rewrite

# As whenever Keras loads it, the layer becomes two.
SHARED_ACROSS = "a_layer_shared_with_a_nested_model"


def random_weights(model, seed=0):
    """Give all vectors, like biases and statistics, other values than the initial ones."""
    rng = np.random.default_rng(seed)
    for _, layer in every_layer(model):
        for weight in layer.weights if not isinstance(layer, keras.layers.Normalization) else ():
            if (len(weight.shape) == 1 or "bias" in weight.name) and "float" in weight.dtype:
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


def outputs_with_zeros(model, graph, keep, inputs):
    """Return the outputs with zeros wherever a masked channel is read: the reference."""
    before, found = model.get_weights(), dict(every_layer(model))
    for index, mask in keep.items():
        for part in graph.groups[index].readers:
            weight = attrgetter(part.weight)(found[part.layer])
            value = weight.numpy()
            for channel in np.flatnonzero(~mask):
                rows = [slice(None)] * value.ndim
                rows[part.axis] = part.indices[channel]
                value[tuple(rows)] = 0
            weight.assign(value)
    outputs = model(inputs)
    model.set_weights(before)
    return keras.tree.flatten(outputs)


def close(expected, actual, model):
    """Compare outputs, relative to the largest value of each."""
    half = any("16" in layer.compute_dtype for _, layer in every_layer(model))
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(actual), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=(3e-2 if half else 1e-5) * np.abs(a).max())


@pytest.mark.parametrize("name", MODELS)
def test_a_compact_model_equals_the_masked_one(name):
    build, removable = MODELS[name]
    model = random_weights(build())
    graph = trace(model)
    assert sum(group.size for group in graph.groups if group.removable) == removable, graph.groups
    keep = random_masks(graph, 0)
    compact = rewrite(model, graph, keep)
    inputs = random_inputs(model, 1)
    close(outputs_with_zeros(model, graph, keep, inputs), compact(inputs), model)
    if name != SHARED_ACROSS:
        assert graph.cost(keep).parameters == compact.count_params()
    assert trace(compact).cost() == graph.cost(keep)
    if graph.branches:
        rewrite(model, graph, keep, without=graph.branches)


@pytest.mark.parametrize("name", [name for name in MODELS if name != SHARED_ACROSS])
def test_a_grown_model_computes_the_same_until_it_is_trained(name):
    model = random_weights(MODELS[name][0]())
    graph = trace(model)
    for group in [each for each in graph.groups if growable(each)][-1:]:
        larger = grow(model, graph, group.index, 3, np.random.default_rng(0))
        again = trace(larger)
        sizes = [each.size for each in graph.groups]
        sizes[group.index] += 3
        assert [each.size for each in again.groups] == sizes
        inputs = random_inputs(model, 1)
        close(model(inputs), larger(inputs), model)
        # The other way round: without the new channels it is the model as before.
        mask = np.arange(group.size + 3) < group.size
        back = rewrite(larger, again, {group.index: mask})
        assert [w.shape for w in back.weights] == [w.shape for w in model.weights]


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class WithoutConfig(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def clipped():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.ops.clip(inputs, np.zeros(4), np.ones(4)))


def chain(*middle, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *middle, layers.Dense(2, name="last")], name="chain")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Subclassed(name="mine"), "mine is a subclassed model.*functional"),
        (keras.Sequential([layers.Dense(2)], name="empty"), "empty is not built yet"),
        (chain(layers.Lambda(lambda x: 2 * x, name="twice")), "twice is a Lambda.*: trust_lambda=True"),
        (
            chain(layers.TimeDistributed(layers.Lambda(abs), name="each"), layers.Flatten(), shape=(3, 4)),
            "each .*holds one: trust_lambda=True",
        ),
        (clipped(), r"clip.* \(Clip\) can't be rebuilt"),
        (chain(WithoutConfig(abs)), r"without_config.* \(WithoutConfig\) can't be rebuilt"),
        (
            chain(layers.MaxPooling2D(data_format="channels_first", name="pool"), shape=(4, 4, 4)),
            "pool has data_format='channels_first'",
        ),
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_line(model, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        trace(model)


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="runs on jax: set KERAS_BACKEND=tensorflow"):
        trace(chain())


def test_nothing_removable_lists_the_pins():
    with pytest.raises(ValueError, match="no channel can be removed: last: an output of the model"):
        trace(chain()).removable()


def test_a_trusted_lambda_is_opaque():
    model = chain(layers.Dense(3), layers.Dense(4), layers.Lambda(lambda x: x[:, ::-1]), layers.Dense(5))
    graph = trace(model, trust_lambda=True)
    assert [group.size for group in graph.removable()] == [3, 5]
    rewrite(model, graph, random_masks(graph, 0))


@pytest.mark.parametrize(
    ("mask", "message"),
    [([True] * 3, "has 4 channels"), ([False] * 4, "must keep one channel"), ([True, False], "is pinned")],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    graph = trace(chain(layers.Dense(4)))
    with pytest.raises(ValueError, match=message):
        graph.cost({int(len(mask) == 2): np.array(mask)})


def test_a_rule_of_a_user(monkeypatch):
    monkeypatch.setattr(graph_recording, "RULES", rules := dict(graph_recording.RULES))
    monkeypatch.setattr(graph_tracing, "RULES", rules)

    @register_rule(Shift)
    def shift(use):
        use.follow("shift", 0, use.ids)
        return use.ids

    model = chain(layers.Dense(6), Shift())
    graph = trace(model)
    assert [group.size for group in graph.removable()] == [6]
    assert [part.weight for part in graph.groups[0].followers] == ["shift"]
    rewrite(model, graph, random_masks(graph, 0))
    with pytest.raises(ValueError, match="is not a class of Keras layers"):
        register_rule(Shift())


def test_names_types_and_files_stay(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right", dtype="float16")
    x = layers.Dense(6, activation="relu")(layers.Concatenate()([left, layers.Dense(5)(right)]))
    model = keras.Model({"left": left, "right": right}, {"a": layers.Dense(2)(x), "b": layers.Dense(1)(x)})
    model.compile("adam", "mse")
    graph = trace(model)
    compact = rewrite(model, graph, random_masks(graph, 0))
    assert (compact.name, compact.compiled) == (model.name, False)
    assert [(each.name, each.dtype) for each in compact.inputs] == [
        (each.name, each.dtype) for each in model.inputs
    ]
    assert compact.output.keys() == {"a", "b"}
    compact.save(tmp_path / "compact.keras")
    inputs = random_inputs(model)
    loaded = keras.models.load_model(tmp_path / "compact.keras")
    close(compact(inputs), loaded(inputs), model)
    # Nothing is left of the masks in the model itself.
    close(model(inputs), rewrite(model, graph, {})(inputs), model)


def test_cost_is_that_of_the_published_network():
    model = keras.applications.MobileNetV2(weights=None)
    cost = trace(model).cost()
    # Sandler et al. 2018, table 4: 3.4 M parameters (3.5 M with the statistics), 300 M multiply-adds.
    assert cost.parameters == model.count_params() == 3_538_984
    assert cost.macs == pytest.approx(300e6, rel=0.01)


def attended(heads, values, size=4, steps=(5, 7), widths=(8, 6)):
    """Multiply-accumulates of attention, by the definition: projections, scores, sums, output."""
    (query, key), (wide, narrow) = steps, widths
    projections = query * wide * heads * size + key * narrow * heads * (size + values)
    return projections + query * key * heads * (size + values) + query * heads * values * wide


def test_cost_of_attention_is_that_of_its_definition():
    inputs, memory = keras.Input((5, 8)), keras.Input((7, 6))
    outputs = layers.MultiHeadAttention(4, 4, value_dim=3)(inputs, memory)
    graph = trace(keras.Model([inputs, memory], outputs))
    found = [(each.name.rpartition("/")[2], each.size) for each in graph.removable()]
    assert found == [("heads", 4), ("values", 3)]
    assert graph.cost().macs == attended(4, 3)
    assert graph.cost({0: np.arange(4) > 1, 1: np.arange(3) > 0}).macs == attended(2, 2)


def test_residual_branches_and_layers_are_removed():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Conv2D(6, 3, padding="same", name="b")(y)
    x = layers.Add(name="identity")([x, y])
    y = layers.Conv2D(5, 3, padding="same", strides=2, activation="relu", name="c")(x)
    y = layers.BatchNormalization(name="e")(layers.Conv2D(8, 3, padding="same", name="d")(y))
    x = keras.ops.add(y, layers.Conv2D(8, 1, strides=2, name="projection")(x))
    x = layers.Conv2D(8, 3, padding="same", name="same")(x)
    model = random_weights(keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x))))
    graph = trace(model)
    assert [[path[-1] for path in each.layers] for each in graph.branches] == [["a", "b"], ["c", "d", "e"]]
    assert [each.name for each in graph.layers] == ["same"]
    # Branches end in zeros: the sum is the other operand.
    model.get_layer("b").set_weights([0 * w for w in model.get_layer("b").get_weights()])
    model.get_layer("e").gamma.assign(np.zeros(8))
    model.get_layer("e").beta.assign(np.zeros(8))
    keep = random_masks(graph, 0)
    compact = rewrite(model, graph, keep, without=graph.branches)
    images = random_inputs(model, 1)
    close(outputs_with_zeros(model, graph, keep, images), compact(images), model)
    assert graph.cost(keep, graph.branches).parameters == compact.count_params()
    assert trace(compact).cost() == graph.cost(keep, graph.branches)
    shallow = rewrite(model, graph, {}, without=graph.layers)
    assert graph.cost({}, graph.layers).parameters == shallow.count_params()
    one = next(each.index for each in graph.groups if each.name == "same")
    with pytest.raises(ValueError, match="same can't be removed"):
        rewrite(model, graph, {one: np.arange(8) < 5}, without=graph.layers)


def test_branches_of_a_nested_model():
    inner = keras.Input((6,))
    block = keras.Model(inner, layers.ReLU()(layers.Add(name="sum")([inner, layers.Dense(6)(inner)])))
    model = random_weights(chain(layers.Dense(6), block))
    graph = trace(model)
    compact = rewrite(model, graph, random_masks(graph, 0), without=graph.branches)
    assert [each.at[1:] for each in graph.branches] == [("sum",)]
    assert len(compact.layers[1].layers) == 2
