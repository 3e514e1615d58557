from __future__ import annotations

import numpy as np
import pytest

from selfscale.nn.first_session import first_session
from selfscale.nn.metrics import Evaluation
from selfscale.records import SessionRecord


class Scripted:
    """A trainer whose cycles end with given scores."""

    loss = "mae"

    def __init__(self, trainer, scores):
        self.settings, self.network, self.left = trainer.settings, trainer.network, list(scores)
        self.done = []

    def session(self, plan, rng, progress=None, hopeless=None):
        score = self.left.pop(0)
        ended = "completed" if score is not None else "dead"
        value = 1.0 if score is None else score
        bias = self.network.model.layers[-1].bias
        bias.assign([value])
        evaluation = Evaluation({"mae": np.array([[value, 1.0]])}, 0.0, value)
        return SessionRecord(
            plan.steps, ((plan.steps, value),), ((plan.steps, value),), ended, 1.0
        ), evaluation


@pytest.mark.parametrize(
    ("scores", "ended", "steps", "kept"),
    [
        ([0.5, 0.48], "stagnated", 120, 0.48),  # gained 4 %
        ([0.5, 0.6], "stagnated", 120, 0.5),
        ([0.5, 0.4], "completed", 120, 0.4),
        ([0.5, None], "stagnated", 120, 0.5),
        ([None], "dead", 60, 1.0),
    ],
)
def test_the_first_session_ends_when_a_cycle_gains_too_little(trainer, scores, ended, steps, kept):
    scripted = Scripted(trainer, scores)
    record, evaluation = first_session(scripted, seed=0, attempt=0)
    assert (record.ended, record.steps) == (ended, steps)
    assert evaluation.score("mae") == kept
    assert trainer.network.model.layers[-1].bias.numpy()[0] == np.float32(kept)
    assert [step for step, _ in record.scores] == list(range(60, steps + 1, 60))
