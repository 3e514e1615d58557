"""What comes next in a minimization of any model: a trial, a long session, or the end."""

from __future__ import annotations

import time

import numpy as np

from selfscale.library.candidates import Candidates
from selfscale.library.cost import CostMeter
from selfscale.library.examples import Source
from selfscale.library.plan import Plan, State
from selfscale.library.result import LONG, ChannelDecision
from selfscale.search.channel_search import (
    ACCEPTED,
    FAILED,
    PROMISING,
    Proposal,
    Tried,
    next_proposal,
)

SEARCH = 0.5  # of a limit: the rest trains what was found
HOLD = 2 / 3  # of the steps that are left, for the first long session; the next has the rest
REFINED = 1 / 3  # of the learning rate, after a long session: the whole undoes what that reached
ROUND = 0.9  # of the cost: a round of trials that leaves less is followed by another


class Schedule:
    """Decide what comes next, by the decisions so far.

    Args:
        state: Is read only.
        plan: How it goes.
        train: Gradients are taken from it.
        meter: Measures costs.
    """

    def __init__(self, state: State, plan: Plan, train: Source, meter: CostMeter) -> None:
        self.state, self.plan, self.train, self.meter = state, plan, train, meter
        self.round = state.decisions[-1].round if state.decisions else 0
        self._started = time.monotonic() - state.seconds

    def left(self, part: float = 1.0) -> float:
        """Return how many training steps of a part of the budget are left."""
        most, seconds = self.plan.budget
        if seconds is not None and time.monotonic() - self._started >= part * seconds:
            return 0
        return np.inf if most is None else int(part * most) - self.state.steps

    def long(self, spent: int = 0) -> int:
        """Return the training steps of a long session, after so many that are not recorded yet."""
        first = not any(each.target == LONG for each in self._tried())
        return int(min(self.plan.long_steps, (HOLD if first else 1) * (self.left() - spent)))

    def rate(self, number: int) -> float:
        """Return the peak of the learning rate, of the optimizer's, to go on from a decision's network."""
        return REFINED if number and self.state.decisions[number - 1].target == LONG else 1.0

    def _tried(self) -> list[ChannelDecision]:
        """Return the decisions from the network of now on."""
        return self.state.decisions[self.state.base.decision :]

    def candidates(self) -> Candidates:
        """Return what may go next."""
        return Candidates(self.plan, self.train, self.meter, self.state.network, self.state.number)

    def propose(self) -> Proposal | None:
        """Return the next trial, as long as the search may go on.

        When all has been tried, it begins again if that has gained much.
        """
        if self.left(SEARCH) < self.plan.session_steps:
            return None
        cost, decisions = self.state.base.cost, self.state.decisions
        candidates = self.candidates()
        branches = candidates.branches()

        def following(history: list[Tried]) -> Proposal | None:
            return next_proposal(candidates.groups, branches, history, candidates.channels, cost=cost)

        proposal = following(self._history())
        earlier = [each.size.cost for each in decisions if each.round < self.round]
        before = earlier[-1] if earlier else self.state.points[0].cost
        if proposal is None and not self.promising() and cost <= ROUND * before:
            self.round += 1
            proposal = following([])
        return proposal

    def _history(self) -> list[Tried]:
        """Return what was tried in this round; a long session decides about what it trained."""
        found, decisions = [], self.state.decisions
        for each in decisions:
            if each.round == self.round:
                tried = each
                while tried.target == LONG:
                    tried = decisions[tried.started_from - 1]
                size = sum(tried.channels.values()) + len(tried.branches)
                outcome = each.outcome if each.outcome in (ACCEPTED, PROMISING) else FAILED
                found.append(Tried(tried.target, tried.share, size, tried.branches, outcome))
        return found

    def promising(self) -> ChannelDecision | None:
        """Return the smallest promising network; after a long session in vain, the next larger one."""
        if self.long() < self.plan.session_steps:
            return None
        held = [each for each in self._tried() if each.target == LONG]
        in_vain = [self._cost(each) for each in held if each.outcome != PROMISING]
        gone_on = {each.started_from for each in held}
        found = [
            each
            for each in self._tried()
            if each.outcome == PROMISING
            and each.number not in gone_on
            and self._cost(each) > max(in_vain, default=0)
        ]
        return min(found, key=self._cost, default=None)

    def _cost(self, decision: ChannelDecision) -> float:
        """Return the cost of the network that a decision tried."""
        number = decision.started_from if decision.target == LONG else decision.number
        return self.state.point(number).cost
