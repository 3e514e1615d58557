"""Bad input: one clear line each; and what data, losses and outputs there may be."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import selfscale

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 64)
TINY = {"steps": 12, "session": 3}


def dense() -> keras.Model:
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bare() -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(8, activation="relu")(inputs)))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.out = layers.Dense(3)

    def call(self, inputs):
        return self.out(inputs)


DATASET = tf.data.Dataset.from_tensor_slices((X, LABELS))
HOLES = np.where(np.arange(64)[:, None] == 20, np.nan, X)  # which a ReLU hides from the loss
SPOILT = tf.data.Dataset.from_tensor_slices((HOLES, LABELS)).batch(8)


def spoilt() -> keras.Model:
    model = dense()
    model.get_layer("hidden").bias.assign(np.full(8, np.nan))
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": -1}, "tolerance: must be a number from 0 to 1, not -1"),
        ({"confidence": 2}, "confidence: must be"),
        ({"round_to": 0}, "round_to: must be a whole number of at least 1, not 0"),
        ({"seed": "a"}, "seed: must be a whole number"),
        ({"budget": {"stps": 3}}, "budget: 'stps' is unknown; did you mean 'steps'"),
        ({"budget": 3}, "budget: must be a dict"),
        ({"budget": {"steps": 10, "session": 6}}, "10 are too few for sessions of 6; give at least 12"),
        ({"budget": {"session": 2.5}}, "budget: session: must be a whole number, not 2.5"),
        ({"budget": {"steps": float("inf")}}, "budget: steps: must be a whole number, not inf"),
        ({"strategy": "tailor"}, "strategy: 'tailor' is unknown; did you mean 'taylor'"),
        ({"cost": "mac"}, "cost: 'mac' is unknown; did you mean 'macs'"),
        ({"cost": lambda model: None}, "cost: <lambda> must return a number"),
        ({"protect": ["hiden"]}, "protect: 'hiden' is unknown; did you mean 'hidden'"),
        ({"protect": ["hidden"]}, "protect: nothing else may be removed"),
        ({"metric": "acuracy"}, "metric: 'acuracy' is unknown; did you mean 'accuracy'"),
        ({"metric": keras.metrics.AUC()}, "gives one number a batch"),
        ({"metric": lambda y, p: tf.reduce_mean(p), "direction": "lower"}, "gives one number a batch"),
        ({"metric": lambda y, p: 0.0 * p[:, 0], "direction": "higher"}, "is 0, and a tolerance relative"),
        ({"direction": "up"}, "direction: must be 'lower' or 'higher'"),
        ({"callbacks": print}, "callbacks: must be a list of functions"),
        ({"model": "model.keras"}, "model: must be a keras.Model, not a str"),
        ({"optimizer": "adamm"}, "optimizer: 'adamm' is none that Keras knows"),
        ({"validation": DATASET}, "validation: its examples are not batched"),
        ({"validation": DATASET.batch(8).repeat()}, "validation: has no end"),
        ({"validation": (X[:0], LABELS[:0])}, "validation: is empty"),
        ({"validation": (X[:1], LABELS[:1])}, "validation: a single example shows nothing with confidence"),
        (
            {"validation": (X[:, :4], LABELS)},
            r"inputs are of shape \(32, 4\), but the model takes \(None, 6\)",
        ),
        ({"validation": (X, np.eye(3)[LABELS])}, r"the targets of out are of shape \(32, 3\)"),
        ({"train": (X, np.eye(3)[LABELS])}, r"train: the targets of out are of shape \(32, 3\)"),
        ({"train": (X, {"out": LABELS})}, "train: targets are a dict, but the model has one output"),
        ({"train": (X, [LABELS, LABELS])}, "train: there are 2 targets, but the model has 1 output: out"),
        ({"validation": (X, LABELS.astype(str))}, "validation: the targets of out are text"),
        ({"validation": (X, LABELS + 1)}, "the targets of out have class 3, but it has 3 outputs"),
        ({"metric": lambda y, p: p[:, 0] / 0.0, "direction": "lower"}, "the model's <lambda> is not finite"),
        ({"metric": lambda y, p: p[:, :2] - y[:, 0], "direction": "lower"}, "metric: <lambda> can't be comp"),
        ({"model": bare(), "loss": lambda y, p: p[:, 7], "metric": "accuracy"}, "loss: can't be computed"),
        ({"train": DATASET}, "train: its examples are not batched"),
        ({"train": [X]}, "train: must be a tf.data.Dataset"),
        ({"train": SPOILT}, "train: holds NaN or infinite numbers"),
        ({"train": SPOILT, "strategy": "magnitude"}, "train: holds NaN or infinite numbers"),
        ({"model": spoilt()}, "model: holds weights that are not finite"),
        ({"model": bare()}, "loss: the model is not compiled; compile it, or give loss="),
        ({"model": Subclassed()}, "subclassed model.*build it as a functional model"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    given = {"model": dense(), "train": (X, LABELS), "validation": (X, LABELS), "budget": TINY} | changes
    with pytest.raises(ValueError, match=message) as caught:
        selfscale.minimize(**given)
    assert "\n" not in str(caught.value)


def test_loss_and_optimizer_by_argument():
    result = selfscale.minimize(
        bare(),
        (X, LABELS),
        (X, LABELS),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9),
        tolerance=0.9,
        budget=TINY,
    )
    assert result.final.cost < result.initial.cost
    assert result.model.compiled and "loss (lower is better)" in str(result)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        part = slice(16 * index, 16 * index + 16)
        return X[part], X[part].mean(axis=1), np.ones(16, "float32")


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_sequential_regression_on_batches(kind):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(1e-2, clipnorm=1.0), "mse", metrics=["mae"])
    shuffled = tf.data.Dataset.from_tensor_slices((X, X.mean(axis=1))).shuffle(64).batch(16)
    data = shuffled if kind == "tf.data" else Batches()
    result = selfscale.minimize(model, data, data, tolerance=0.9, budget=TINY)
    assert result.metric == "mae (lower is better)"
    assert isinstance(result.model, keras.Sequential)


def outputs_model() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    pooled = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(x))
    box = layers.Dense(4, name="box")(pooled)
    model = keras.Model({"image": inputs}, {"mask": mask, "box": box})
    model.compile(
        "adam", {"mask": "binary_crossentropy", "box": "mse"}, loss_weights={"mask": 1.0, "box": 0.5}
    )
    return model


def of_two_outputs():
    targets = {"mask": np.zeros((48, 8, 8, 1), "float32"), "box": np.zeros((48, 4), "float32")}
    return {"image": np.zeros((48, 8, 8, 3), "float32")}, targets, {key: np.ones(48) for key in targets}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (0, {}, "the input 'image' is missing; there are imag$"),
        (1, {}, "targets: 'mas' is unknown; did you mean 'mask'"),
        (2, {}, "sample weights: 'mas' is unknown; did you mean 'mask'"),
        (
            None,
            {"metric": "accuracy"},
            "metric: accuracy judges one output, but the model has box, mask; give",
        ),
        (None, {"loss": {"bx": "mse", "mask": "mse"}}, "loss: 'bx' is unknown; did you mean 'box'"),
        (None, {"loss": ["mse"]}, "loss: there are 1, but the model has 2 outputs: box, mask"),
    ],
)
@pytest.mark.parametrize("name", ["train", "validation"])
def test_names_that_are_not_those_of_the_model_are_one_line(change, options, message, name):
    given = {"train": of_two_outputs(), "validation": of_two_outputs()}
    if change is not None:
        given[name][change][{0: "imag"}.get(change, "mas")] = given[name][change].popitem()[1]
        message = f"{name}: {message}"
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        selfscale.minimize(outputs_model(), **given, **options, budget=TINY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", [None, {"mask": "binary_accuracy"}])
def test_several_outputs_and_sample_weights(metric):
    images = {"image": RNG.normal(size=(48, 8, 8, 3)).astype("float32")}
    targets = {
        "mask": (images["image"].mean(axis=-1, keepdims=True) > 0).astype("float32"),
        "box": RNG.normal(size=(48, 4)).astype("float32"),
    }
    weights = {"mask": np.ones((48, 8, 8), "float32"), "box": RNG.random(48).astype("float32")}
    data = (images, targets, weights)
    model = outputs_model()
    result = selfscale.minimize(model, data, data, metric=metric, tolerance=0.9, budget=TINY)
    assert result.final.cost < result.initial.cost
    assert set(result.model.output) == {"mask", "box"}
    assert ("The metric does not look at box" in result.report()) == bool(metric)


def test_nothing_tried_is_said(monkeypatch):
    result = selfscale.minimize(dense(), (X, LABELS), (X, LABELS), budget={"seconds": 0.0})
    assert "0 decisions" in str(result) and "Nothing was tried: time was over" in result.report()


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = dense()
    finally:
        keras.config.set_dtype_policy("float32")
    result = selfscale.minimize(model, (X, LABELS), (X, LABELS), tolerance=0.9, budget=TINY)
    assert result.final.cost < result.initial.cost
    assert result.model.get_layer("hidden").compute_dtype == "float16"
