"""`selfscale.minimize` as a user calls it, on small models of several kinds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import selfscale

DIGITS = load_digits()
X, Y = (DIGITS.images / 16).astype("float32")[..., None], DIGITS.target
TRAIN, VALIDATION = (X[:1000], Y[:1000]), (X[1000:], Y[1000:])
BRIEF = {"steps": 240, "session": 30}


def residual(width: int = 8) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(2 * width, 3, padding="same", use_bias=False, kernel_regularizer="l2")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    x = layers.Add()([layers.BatchNormalization()(x), shortcut])
    x = layers.Dropout(0.1)(layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(x))))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = residual()
    model.fit(*TRAIN, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="module")
def result(trained):
    return selfscale.minimize(trained, TRAIN, VALIDATION, tolerance=0.02, budget=BRIEF)


def test_result_is_smaller_plain_compiled_and_within_the_tolerance(trained, result, tmp_path):
    before = trained.evaluate(*VALIDATION, verbose=0, return_dict=True)
    result.model.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    after = loaded.evaluate(*VALIDATION, verbose=0, return_dict=True)
    assert after["accuracy"] >= before["accuracy"] / 1.02
    assert after["accuracy"] == pytest.approx(result.final.score)
    assert result.model.count_params() < 0.8 * trained.count_params()
    assert result.final.size.parameters == result.model.count_params()
    assert sum(decision.steps for decision in result.decisions) <= BRIEF["steps"]


def test_the_given_model_is_not_changed(trained):
    before = [weight.copy() for weight in trained.get_weights()]
    accuracy = trained.evaluate(*VALIDATION, verbose=0)
    selfscale.minimize(trained, TRAIN, VALIDATION, budget={"steps": 40, "session": 10})
    for one, other in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert trained.evaluate(*VALIDATION, verbose=0) == accuracy


def test_frontier_and_decisions_agree_with_the_models(result):
    costs = [point.cost for point in result.frontier]
    scores = [point.score for point in result.frontier]
    assert costs == sorted(costs, reverse=True) and scores == sorted(scores, reverse=True)
    for point in result.frontier:
        accuracy = np.mean(np.argmax(point.model(VALIDATION[0]), axis=-1) == VALIDATION[1])
        assert accuracy == pytest.approx(point.score)
        assert point.model.count_params() == point.size.parameters
    assert [decision.number for decision in result.decisions] == list(range(1, len(result.decisions) + 1))
    accepted = [decision for decision in result.decisions if decision.accepted]
    assert accepted[-1].size == result.final.size


def test_report_names_the_metric_and_every_decision(result, tmp_path):
    text = result.report(tmp_path / "report.html")
    assert "accuracy (higher is better)" in text
    assert text.count("reverted") + text.count("accepted") >= len(result.decisions)
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and result.decisions[0].tried in page


def test_same_seed_same_result(trained, result):
    again = selfscale.minimize(trained, TRAIN, VALIDATION, tolerance=0.02, budget=BRIEF)
    assert [(d.tried, d.score) for d in again.decisions] == [(d.tried, d.score) for d in result.decisions]
    for one, other in zip(again.model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_callbacks_and_progress_are_told(trained):
    decisions, moments = [], []
    found = selfscale.minimize(
        trained,
        TRAIN,
        VALIDATION,
        budget={"steps": 60, "session": 20},
        callbacks=[decisions.append],
        progress=moments.append,
    )
    assert decisions == list(found.decisions)
    limits = {moment.decision: moment.limit for moment in moments}
    assert set(limits) == {decision.number for decision in decisions}
    told = [decision for decision in decisions if "the limit of" in decision.reason]
    assert told and all(f"the limit of {limits[each.number]:.4g}" in each.reason for each in told)


def weights_of(model: keras.Model) -> float:
    return float(model.count_params())


@pytest.mark.parametrize(
    ("strategy", "cost"), [("magnitude", "parameters"), ("group_norm", "bytes"), ("random", weights_of)]
)
def test_strategies_and_costs(trained, strategy, cost):
    found = selfscale.minimize(
        trained,
        TRAIN,
        VALIDATION,
        tolerance=0.5,
        strategy=strategy,
        cost=cost,
        round_to=4,
        protect=["stem"],
        budget={"steps": 40, "session": 20},
    )
    widths = [layer.filters for layer in found.model.layers if isinstance(layer, layers.Conv2D)]
    assert widths[0] == 8 and all(width % 4 == 0 for width in widths)
    assert found.final.cost < found.initial.cost
