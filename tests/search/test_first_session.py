from __future__ import annotations

import keras
import numpy as np
import pytest

from conftest import TINY, new_trainer
from selfscale.decisions import SessionRecord
from selfscale.nn.fcn import build, calibrate
from selfscale.nn.metrics import Evaluation
from selfscale.search.first_session import best_start, first_session


class Scripted:
    """A trainer whose cycles end with given scores."""

    loss = "mae"

    def __init__(self, trainer, scores, spread=0.0):
        self.spread = spread
        self.settings, self.network, self.left = trainer.settings, trainer.network, list(scores)
        self.done = []

    def session(self, plan, rng, progress=None, hopeless=None):
        score = self.left.pop(0)
        ended = "completed" if score is not None else "dead"
        value = 1.0 if score is None else score
        bias = self.network.model.layers[-1].bias
        bias.assign([value])
        # Two photographs, of which one is better than the mean, and the other one worse, in turns.
        difference = self.spread * (-1) ** len(self.left)
        sums = [[value - difference, 1.0], [value + difference, 1.0]]
        evaluation = Evaluation({"mae": np.array(sums)}, 0.0, value)
        return SessionRecord(
            plan.steps, ((plan.steps, value),), ((plan.steps, value),), ended, 1.0
        ), evaluation


@pytest.mark.parametrize(
    ("scores", "ended", "cycles", "best"),
    [
        ([0.5, 0.48, 0.47], "stagnated", 3, 0.47),  # gained 4 % and 2 %
        ([0.5, 0.48, 0.4, 0.3], "completed", 4, 0.3),  # 4 %, then 17 %: one weak cycle is not the end
        ([0.5, 0.6, 0.7], "stagnated", 3, 0.5),
        ([0.5, None, 0.49], "stagnated", 3, 0.49),
        ([None], "dead", 1, 1.0),
        ([0.0, 0.0, 0.0], "stagnated", 3, 0.0),  # a perfect score cannot be gained upon
    ],
)
def test_the_first_session_ends_when_two_cycles_in_a_row_gain_too_little(
    trainer, scores, ended, cycles, best
):
    record, evaluation = first_session(Scripted(trainer, scores), seed=0, attempt=0)
    assert (record.ended, record.steps) == (ended, 60 * cycles)
    assert evaluation.score("mae") == best
    assert trainer.network.model.layers[-1].bias.numpy()[0] == np.float32(best)
    assert [step for step, _ in record.scores] == list(range(60, 60 * cycles + 1, 60))


def test_a_gain_that_may_be_chance_is_none(trainer):
    """20 % less on average, but one of two photographs got worse: the lower bound of the gain is below 0."""
    scripted = Scripted(trainer, [0.5, 0.4, 0.32], spread=0.3)
    record, evaluation = first_session(scripted, seed=0, attempt=0)
    assert (record.ended, record.steps) == ("stagnated", 180)
    assert evaluation.score("mae") == pytest.approx(0.32)  # better all the same, as far as is known


def test_a_start_that_is_stuck_is_recognised_by_the_others(train_split, validation_split):
    first = TINY.first.model_copy(update={"starts": 3, "start_steps": 30})
    settings = TINY.model_copy(update={"first": first})

    def fresh(start: int) -> keras.Model:
        """A network of which only the second start can learn: the filters of the others never fire."""
        model = build([3, 4], kernel=3, deviation=0.3, seed=(1,))
        calibrate(model, train_split.images / np.float32(255), float(train_split.targets.mean()))
        if start != 1:
            hidden = model.layers[1]
            hidden.bias.assign(np.full(3, -10.0))
        return model

    trainer = new_trainer(train_split, validation_split, fresh(0), settings)
    assert best_start(trainer, fresh, seed=0, attempt=0) == 90
    assert trainer.network.model.layers[1].bias.numpy().min() > -1
    alone = new_trainer(train_split, validation_split, fresh(0))
    before = alone.network.model.get_weights()
    assert best_start(alone, fresh, seed=0, attempt=0) == 0  # a single start has nothing to choose from
    for old, new in zip(before, alone.network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
