"""What comes next, by decisions that nothing was trained for."""

from __future__ import annotations

from typing import Any

from selfscale.library.plan import Budget, Plan, State
from selfscale.library.result import LONG, ChannelDecision, FrontierPoint, Size
from selfscale.library.schedule import Schedule
from selfscale.search.channel_search import ALL


class Story:
    """Decisions as they could have been, at a budget of 1000 steps and sessions of 50."""

    def __init__(self, steps: int | None = 1000) -> None:
        plan: Any = Plan(0.01, 0.95, lambda subject: [], (), 1, 50, 400, Budget(steps), 0)
        self.state = State(None, [], [FrontierPoint(0, Size(100, 100, 100.0), 1.0, True, {}, None)])  # type: ignore[arg-type]
        self.next = Schedule(self.state, plan, None, None)  # type: ignore[arg-type]

    def decide(self, outcome: str, cost: float, target: str = ALL, started_from: int = 0) -> int:
        number, size = self.state.number, Size(1, 1, cost)
        steps = self.next.long() if target == LONG else 50
        if outcome != "reverted":
            self.state.points.append(FrontierPoint(number, size, 1.0, False, {}, None))
        self.state.decisions.append(
            ChannelDecision(
                number,
                0,
                target,
                0.5,
                started_from,
                "",
                {"g": 1},
                (),
                outcome,
                "",
                1.0,
                0.0,
                0.0,
                size,
                {},
                steps,
                0.0,
            )
        )
        return number

    @property
    def promising(self) -> int | None:
        found = self.next.promising()
        return found.number if found else None


def test_the_smallest_promising_network_gets_two_thirds_of_what_is_left():
    story = Story()
    assert story.promising is None
    story.decide("promising", 75.0)
    smallest = story.decide("promising", 50.0)
    story.decide("reverted", 40.0)
    assert story.promising == smallest
    assert story.next.long() == 400  # of 850 left; at most so many


def test_after_a_long_session_in_vain_the_next_larger_one_gets_the_rest():
    story = Story()
    larger, smaller = story.decide("promising", 75.0), story.decide("promising", 50.0)
    story.decide("promising", 50.0, LONG, smaller)
    assert story.promising == 3  # it goes on itself, as long as that is promising
    assert [story.next.rate(number) for number in (smaller, 3)] == [1, 1 / 3]
    story.decide("for the frontier only", 50.0, LONG, 3)
    assert story.promising == larger
    assert story.next.long() == 1000 - story.state.steps
    story.decide("for the frontier only", 75.0, LONG, larger)
    assert story.promising is None


def test_what_is_accepted_is_gone_on_from():
    story = Story(steps=None)
    story.decide("accepted", 90.0)
    assert story.next.rate(story.state.base.decision) == 1
    number = story.decide("promising", 75.0)
    assert story.next.long() == 400
    accepted = story.decide("accepted", 75.0, LONG, number)
    assert story.state.base.decision == accepted
    assert story.promising is None
    assert story.next.rate(story.state.base.decision) == 1 / 3


def test_no_session_goes_beyond_the_budget():
    story = Story()
    while story.next.left() >= 50:
        story.decide("promising", 100.0 - story.state.number, ALL if story.state.number % 2 else LONG, 1)
    assert story.state.steps <= 1000
