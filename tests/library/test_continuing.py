from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import selfscale
from selfscale.library import training
from selfscale.library.result import LAST, LONG
from selfscale.nn.optimizers import learning_rates

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 8, 8, 1)).astype("float32")
Y = (X.mean(axis=(1, 2)) > 0).astype("float32")
ARGUMENTS = dict(tolerance=0.3, budget={"steps": 50, "session": 5}, metric="loss", batch_size=16)


class Killed(Exception):
    pass


def kill_at(number: int):
    def callback(decision: object) -> None:
        if decision.number == number:  # type: ignore[attr-defined]
            raise Killed

    return callback


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = shortcut = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Dropout(0.2)(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, shortcut]))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy")
    return model


def test_killed_minimization_goes_on_with_the_same_result(model, tmp_path):
    whole = selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS)
    assert any(decision.accepted for decision in whole.decisions[:2])
    assert any(decision.branches for decision in whole.decisions)
    for number in (1, 2, 4):
        with pytest.raises(Killed):
            selfscale.minimize(
                model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path, callbacks=[kill_at(number)]
            )
    resumed = selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path)
    told = [(d.tried, d.accepted, d.score, d.size) for d in whole.decisions]
    assert [(d.tried, d.accepted, d.score, d.size) for d in resumed.decisions] == told
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    finished = selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path)
    assert [d.as_dict() for d in finished.decisions] == [d.as_dict() for d in resumed.decisions]


def test_folder_of_something_else_or_damaged(model, tmp_path):
    record = tmp_path / "minimization.json"
    record.write_text(json.dumps({"settings": {"seed": 3}}))
    with pytest.raises(ValueError, match=r"directory: .* holds a minimization with another model, tolerance"):
        selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path)
    record.write_text("{")
    with pytest.raises(ValueError, match=r"directory: .*minimization.json is damaged .*; delete"):
        selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path)


def test_a_folder_that_cannot_be_made(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"directory: .*file can't be made \(File exists\)"):
        selfscale.minimize(model, (X, Y), (X, Y), **ARGUMENTS, directory=tmp_path / "file")


def test_long_sessions_keep_the_rate_high_and_what_follows_them_has_a_third_of_it(monkeypatch):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(X, Y, epochs=15, batch_size=16, verbose=0)
    sessions = []

    def recorded(steps, peak, warmup, plateau):
        sessions.append((peak, plateau))
        return learning_rates(steps, peak, warmup, plateau)

    monkeypatch.setattr(training, "learning_rates", recorded)
    followed = set()
    for tolerance in (0.6, 1.0):  # a last session after a long one, and a second long one
        sessions.clear()
        arguments = ARGUMENTS | {"tolerance": tolerance, "budget": {"steps": 200, "session": 5}}
        decisions = selfscale.minimize(model, (X, Y), (X, Y), **arguments).decisions
        targets = [None, *(each.target for each in decisions)]
        for each, (peak, plateau) in zip(decisions, sessions, strict=True):
            third = targets[each.started_from] == LONG
            assert plateau == (0.5 if each.target in (LONG, LAST) else 0)
            assert peak == pytest.approx(0.01 / 3 if third else 0.01)
            followed |= {each.target} if third else set()
    assert followed == {LONG, LAST}
