from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from selfscale.library.examples import Batch
from selfscale.library.metric import deciding

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
LABELS = RNG.integers(0, 3, 12)


def classifier(units: int = 3, activation: str | None = "softmax") -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(inputs))


def two_outputs() -> keras.Model:
    inputs = keras.Input((4,))
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(inputs)
    return keras.Model(inputs, {"kind": kind, "box": keras.layers.Dense(4, name="box")(inputs)})


def evaluate(model: keras.Model, metric, y, weights=None):
    return metric.sums(model, [Batch(tf.constant(X[s]), y_at(y, s), y_at(weights, s)) for s in PARTS])


PARTS = (slice(0, 8), slice(8, 12))


def y_at(nest, part):
    return None if nest is None else keras.tree.map_structure(lambda a: tf.constant(a[part]), nest)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (None, keras.metrics.SparseCategoricalAccuracy()),
        ("accuracy", keras.metrics.SparseCategoricalAccuracy()),
        (keras.metrics.SparseCategoricalAccuracy, keras.metrics.SparseCategoricalAccuracy()),
        ("loss", keras.metrics.SparseCategoricalCrossentropy()),
        ("sparse_categorical_crossentropy", keras.metrics.SparseCategoricalCrossentropy()),
        (keras.losses.SparseCategoricalCrossentropy(), keras.metrics.SparseCategoricalCrossentropy()),
        (
            keras.metrics.SparseTopKCategoricalAccuracy(2),
            keras.metrics.SparseTopKCategoricalAccuracy(2),
        ),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_score_is_that_of_keras(metric, reference, weighted):
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    weights = RNG.random(12).astype("float32") if weighted else None
    found = deciding(model, model.loss, metric)
    sums = evaluate(model, found, LABELS, weights)
    reference.reset_state()
    reference.update_state(LABELS, model(X), weights)
    assert sums.shape == (12, 2)
    assert found.score(sums) == pytest.approx(float(reference.result()), rel=1e-5)


def test_sums_are_those_of_a_loss_and_higher_scores_are_lower_losses():
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    metric = deciding(model, model.loss)
    sums = evaluate(model, metric, LABELS)
    assert metric.higher
    assert sums[:, 0].sum() / sums[:, 1].sum() == pytest.approx(1 / metric.score(sums))


@pytest.mark.parametrize(
    ("units", "activation", "y", "expected"),
    [
        (1, "sigmoid", (LABELS > 0).astype("float32"), keras.metrics.BinaryAccuracy()),
        (1, "sigmoid", (LABELS[:, None] > 0).astype("float32"), keras.metrics.BinaryAccuracy()),
        (3, "softmax", np.eye(3)[LABELS], keras.metrics.CategoricalAccuracy()),
        (3, "softmax", LABELS[:, None], keras.metrics.SparseCategoricalAccuracy()),
    ],
)
def test_accuracy_follows_the_shapes(units, activation, y, expected):
    model = classifier(units, activation)
    metric = deciding(model, "mse", "accuracy")
    expected.update_state(y.reshape(-1, 1) if units == 1 else y, model(X))
    assert metric.score(evaluate(model, metric, y)) == pytest.approx(float(expected.result()))


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_loss_of_several_outputs_is_that_of_compile(structure):
    model = two_outputs()
    y = {"kind": LABELS, "box": RNG.normal(size=(12, 4)).astype("float32")}
    loss = {"kind": "sparse_categorical_crossentropy", "box": "mse"}
    model.compile("adam", loss, loss_weights={"kind": 1.0, "box": 0.3})
    metric = deciding(model, model.loss)
    expected = model.evaluate(X, y, verbose=0, batch_size=12, return_dict=True)["loss"]
    assert (metric.name, metric.higher) == ("loss", False)
    given = y if structure == "dict" else [y[name] for name in model.output_names]
    assert metric.score(evaluate(model, metric, given)) == pytest.approx(expected, rel=1e-5)


def test_one_output_decides():
    model = two_outputs()
    metric = deciding(model, None, {"kind": "accuracy"})
    assert metric.name == "kind_accuracy"
    y = {"kind": LABELS, "box": X}
    expected = np.mean(np.argmax(model(X)["kind"], axis=-1) == LABELS)
    assert metric.score(evaluate(model, metric, y)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="metric: 'kin' is unknown; did you mean 'kind'"):
        deciding(model, None, {"kin": "accuracy"})


@pytest.mark.parametrize("output", ["kind", "key"])
def test_outputs_are_named_by_the_keys_of_a_dict(output):
    inputs = keras.Input((4,))
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(inputs)
    one = keras.Model(inputs, {output: kind})
    two = keras.Model(inputs, {output: kind, "a": keras.layers.Dense(4)(inputs)})
    hits = np.mean(np.argmax(one(X)[output], axis=-1) == LABELS)
    y = {output: LABELS, "a": X}
    for model, metric in ((one, "accuracy"), (one, None), (two, {output: "accuracy"}), (two, None)):
        loss = {output: "sparse_categorical_crossentropy"} | ({"a": "mse"} if model is two else {})
        model.compile("adam", loss, metrics={output: ["accuracy"]})
        targets = {key: y[key] for key in loss}
        assert (
            deciding(model, loss, metric).score(evaluate(model, deciding(model, loss, metric), targets))
            == hits
        )
        whole = deciding(model, loss, "loss")
        expected = model.evaluate(X, targets, verbose=0, batch_size=12, return_dict=True)["loss"]
        assert whole.score(evaluate(model, whole, targets)) == pytest.approx(expected, rel=1e-5)


def test_own_function_of_values_or_sums_and_counts():
    model = classifier()

    def hits(y, outputs):
        return tf.cast(tf.argmax(outputs, -1) == y, "float32"), tf.fill(tf.shape(y), 2.0)

    metric = deciding(model, "mse", hits, "higher")
    expected = np.mean(np.argmax(model(X), axis=-1) == LABELS) / 2
    assert metric.score(evaluate(model, metric, LABELS)) == pytest.approx(expected)


def test_own_function_gets_floats_of_one_precision():
    model, chosen = classifier(), np.eye(3)[LABELS]  # float64, as of keras.utils.to_categorical
    metric = deciding(model, "mse", lambda y, outputs: tf.reduce_sum(y * outputs, -1), "higher")
    expected = np.mean(np.sum(chosen * model(X), axis=-1))
    assert metric.score(evaluate(model, metric, chosen)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (keras.metrics.AUC(name="auc"), "auc gives one number a batch, but one value per example decides"),
        ("acuracy", "metric: 'acuracy' is unknown; did you mean 'accuracy'"),
        (lambda y, p: p[:, 0], "is not known; add direction='lower' or direction='higher'"),
        (3, "must be a metric, a loss, a name or a function, not 3"),
        ({"a": "mse", "b": "mse"}, "one metric decides"),
    ],
)
def test_bad_metrics(metric, message):
    with pytest.raises(ValueError, match=message):
        deciding(classifier(), "mse", metric)


def test_one_number_a_batch():
    model = classifier()
    metric = deciding(model, "mse", lambda y, p: tf.reduce_mean(p), "lower")
    with pytest.raises(ValueError, match="gives one number a batch"):
        evaluate(model, metric, LABELS)
