from __future__ import annotations

import pytest

from selfscale.patience import hopeless_scores
from selfscale.records import SessionRecord


def session(*scores: float, steps: int = 30, ended: str = "completed") -> SessionRecord:
    points = tuple((10 * (i + 1), score) for i, score in enumerate(scores))
    return SessionRecord(steps, points, points, ended, 1.0)


FULL = [session(8, 4, 2), session(4, 2, 1.5), session(4, 4, 4), session(5, 3, 2)]


def test_the_steepest_descent_so_far_decides_with_a_margin():
    # Of the score after 10 steps, 0.25, 0.375, 1 and 0.4 were left; after 20 steps 0.5, 0.75, 1, 0.67.
    stops = hopeless_scores(FULL, 30, limit=0.9)
    assert stops == {10: pytest.approx(0.9 / (0.9 * 0.25)), 20: pytest.approx(0.9 / (0.9 * 0.5))}


def test_none_is_stopped_before_four_were_completed():
    stopped = session(8.0, steps=10, ended="hopeless")
    died = session(1, 1, steps=20, ended="dead")
    assert hopeless_scores([*FULL[:3], stopped, died], 30, 1.0) == {}


def test_of_a_session_of_several_cycles_the_first_counts():
    longer = session(8, 4, 2, 6, 0.1, 0.1, steps=60)
    assert hopeless_scores([longer, *FULL[1:]], 30, 1.0) == hopeless_scores(FULL, 30, 1.0)


def test_no_session_that_came_down_like_an_earlier_one_is_stopped():
    for past in FULL:
        scores = dict(past.scores)
        stops = hopeless_scores(FULL, 30, limit=scores[30])
        assert all(scores[step] <= stop for step, stop in stops.items())
