from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfscale.nn.trainer import Plan
from selfscale.search.early_stopping import hopeless_scores

PLAN = Plan(30, 3)  # looks after 10, 20 and 30 steps
FULL = [(8, 4, 2), (4, 2, 1.5), (4, 4, 4), (5, 3, 2)]


def test_who_would_have_to_come_down_twice_as_far_as_the_steepest_so_far():
    # Of the score after 10 steps, 0.25, 0.375, 1 and 0.4 were left; after 20 steps 0.5, 0.75, 1, 0.67.
    stops = hopeless_scores(FULL, PLAN, limit=0.9)
    assert stops == {10: pytest.approx(0.9 / 0.25**2), 20: pytest.approx(0.9 / 0.5**2)}


@pytest.mark.parametrize("short", [[], [8.0], [1.0, 1.0], [8, 4, 0.0]], ids=str)
def test_none_is_stopped_before_four_came_to_the_end_of_a_cycle(short):
    """Stopped and dead ones are shorter; of a score of zero there is no share."""
    assert hopeless_scores([*FULL[:3], short], PLAN, 1.0) == {}


@pytest.mark.parametrize("broken", [[np.nan, 4, 2], [8, 4, np.nan], [np.inf, 4, 2]], ids=str)
def test_a_loss_that_is_no_number_says_nothing_and_stops_nothing_else(broken):
    assert hopeless_scores([broken, *FULL], PLAN, 1.0) == hopeless_scores(FULL, PLAN, 1.0)


def test_of_a_session_of_several_cycles_the_first_counts():
    longer = [8, 4, 2, 6, 0.1, 0.1]
    assert hopeless_scores([longer, *FULL[1:]], PLAN, 1.0) == hopeless_scores(FULL, PLAN, 1.0)


def test_sessions_of_any_length_in_steps_are_compared():
    """The decay of the learning rate brings scores down: the same share of a session, the same fall."""
    short, long = (hopeless_scores(FULL, Plan(steps, 3), 1.0) for steps in (30, 3000))
    assert list(short) == [10, 20] and list(long) == [1000, 2000]
    assert list(short.values()) == list(long.values())


def test_a_session_too_short_for_all_its_evaluations():
    """With two steps it is evaluated twice: after the first of them, a share of the second is known."""
    assert hopeless_scores(FULL, Plan(2, 4), 0.9) == {1: pytest.approx(0.9 / 0.5**2)}
    assert hopeless_scores(FULL, Plan(1, 4), 0.9) == {}


def test_no_session_that_came_down_like_an_earlier_one_is_stopped():
    for past in FULL:
        scores = dict(zip(PLAN.pauses, past, strict=True))
        stops = hopeless_scores(FULL, PLAN, limit=scores[30])
        assert all(scores[step] <= stop for step, stop in stops.items())


curves = st.lists(st.floats(1e-4, 1e3), min_size=3, max_size=7)


@given(st.lists(curves, min_size=4, max_size=10), st.floats(1e-4, 1e3))
def test_no_trial_that_could_still_come_within_the_limit_is_stopped(known, limit):
    """If it came down as far as the steepest one so far: its score at the stop is that far above, or more."""
    stops = hopeless_scores(known, PLAN, limit)
    assert list(stops) == [10, 20]
    for i, stop in enumerate(stops.values()):
        steepest = min(past[2] / past[i] for past in known)
        assert stop * steepest >= limit * (1 - 1e-9)
        assert stop >= limit * (1 - 1e-9)  # nor one that is within the limit already
        assert np.isfinite(stop)


def test_curves_that_rose_do_not_tighten_the_rule():
    assert hopeless_scores([(1, 2, 4)] * 4, PLAN, 1.5) == {10: 1.5, 20: 1.5}
