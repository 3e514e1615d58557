"""The minimization of any model: propose, mask, train shortly, evaluate, accept or revert."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from selfscale.library.candidates import Candidates
from selfscale.library.cost import CostMeter
from selfscale.library.examples import Source
from selfscale.library.network import Network, Task
from selfscale.library.plan import Budget, Plan, State
from selfscale.library.result import ChannelDecision, FrontierPoint
from selfscale.progress import Progress
from selfscale.search.acceptance import RULES, Judge, Verdict, relative_loss
from selfscale.search.channel_search import (
    FIRST_SHARE,
    Proposal,
    Tried,
    next_proposal,
    some_channels,
)

CYCLES = 2  # sessions of a trial that comes close
NEAR = 2.0  # times the tolerance: so close, a trial gets a second session
COMPACTED = 0.8  # of the multiply-accumulates, below which a new trace pays
ROUND = 0.9  # of the cost: a round of trials that leaves less is followed by another
MOST_BLOCKS = 2000  # that are resampled: of more examples, neighbours are added up
LAST, BELOW = "last session", "below the tolerance"


class Outcome(NamedTuple):
    """Of a trial's sessions."""

    verdict: Verdict
    sums: np.ndarray
    ended: str
    steps: int
    seconds: float


class Loop:
    """Minimize step by step; `state` is complete after each decision that `run` yields.

    Args:
        state: The initial network, with its point; or what an earlier run left.
        plan: How it goes.
        task: What is trained and judged.
        train: Training data.
        meter: Measures costs.
        reference: The initial network's sums per validation example.
        progress: Listener.
    """

    def __init__(
        self,
        state: State,
        plan: Plan,
        task: Task,
        train: Source,
        meter: CostMeter,
        reference: np.ndarray,
        progress: Progress,
    ) -> None:
        self.state, self.plan, self.task, self.meter = state, plan, task, meter
        self.progress = progress
        rule = RULES["non_inferiority"]
        self.judge = Judge(in_blocks(reference), plan.tolerance, rule, plan.confidence, CYCLES)
        self.candidates = Candidates(plan, train, meter)
        self._batches = train.endlessly(plan.seed, skip=self.steps)
        self._round = state.decisions[-1].round if state.decisions else 0
        self._started = time.monotonic() - sum(each.seconds for each in state.decisions)

    @property
    def steps(self) -> int:
        return sum(each.steps for each in self.state.decisions)

    @property
    def number(self) -> int:
        return len(self.state.decisions) + 1

    def run(self) -> Iterator[ChannelDecision]:
        """Yield each decision: the search, the last session, and what goes below the tolerance."""
        plan, decisions = self.plan, self.state.decisions
        while not any(each.target in (LAST, BELOW) for each in decisions):
            proposal = self._propose() if self._allows(plan.session_steps + plan.last_steps) else None
            if proposal is None and not any(each.accepted for each in decisions):
                break
            yield self._decide(proposal) if proposal else self._last_session()
        while plan.budget != Budget() and self._allows(plan.session_steps):
            groups, _ = self.candidates.of(self.state.network, self.number)
            proposal = some_channels(BELOW, groups, FIRST_SHARE, plan.round_to)
            if proposal is None or not proposal.saving:
                return
            yield self._decide(proposal)

    def _allows(self, steps: int) -> bool:
        most, seconds = self.plan.budget
        within = most is None or self.steps + steps <= most
        return within and (seconds is None or time.monotonic() - self._started < seconds)

    def _propose(self) -> Proposal | None:
        """Return the next proposal; when all have been tried, from the beginning if that has gained much."""
        cost, decisions = self.state.points[-1].cost, self.state.decisions
        groups, branches = self.candidates.of(self.state.network, self.number)
        history = [
            Tried(each.target, sum(each.channels.values()) + len(each.branches), each.branches, each.accepted)
            for each in decisions
            if each.round == self._round
        ]
        proposal = next_proposal(groups, branches, history, cost=cost, round_to=self.plan.round_to)
        earlier = [each.size.cost for each in decisions if each.round < self._round]
        before = earlier[-1] if earlier else self.state.points[0].cost
        if proposal is None and cost <= ROUND * before:
            self._round += 1
            proposal = next_proposal(groups, branches, [], cost=cost, round_to=self.plan.round_to)
        return proposal

    def _decide(self, proposal: Proposal) -> ChannelDecision:
        """Try a proposal; accept it, or revert."""
        network = self.state.network
        before, trial = network.masks.state(), network
        if proposal.branches:
            trial = Network(network.compact(without=proposal.branches), self.task)
        else:
            network.disable(proposal.channels)
        outcome = self._train(trial, str(proposal))
        completed, within = outcome.ended == "completed", outcome.verdict.accepted
        if completed and (within or proposal.target == BELOW):
            self._accept(trial, outcome, within)
        else:
            network.masks.restore(before)
        return self._record(proposal, outcome, self._reason(outcome))

    def _reason(self, outcome: Outcome) -> str:
        """Return in words why a trial was accepted or not, in the metric's own unit."""
        if outcome.ended != "completed":
            return "the loss is not a finite number"
        metric, first = self.task.metric, self.state.points[0].score
        worst, limit = (
            first / (1 + change) if metric.higher else first * (1 + change)
            for change in (outcome.verdict.bound, self.plan.tolerance)
        )
        side = "at least" if metric.higher else "at most"
        within = "within" if outcome.verdict.accepted else "beyond"
        return f"{side} {worst:.4g} with confidence, {within} the limit of {limit:.4g}"

    def _last_session(self) -> ChannelDecision:
        """Train what is left for longer; accept it if it is no worse."""
        network = self.state.network
        before, previous = network.masks.state(), network.evaluate()
        outcome = self._train(network, LAST, self.plan.last_steps)
        better = outcome.ended == "completed" and relative_loss(outcome.sums, previous) <= 0
        if better:
            self._accept(network, outcome, within=True)
        else:
            network.masks.restore(before)
        why = "no worse than before it" if better else "worse than before it"
        return self._record(Proposal(LAST, {}, (), 0.0), outcome, why)

    def _train(self, network: Network, tried: str, steps: int | None = None) -> Outcome:
        """Train for a session, and for a second one if the first comes close to the tolerance."""
        started, total, length = time.perf_counter(), 0, steps or self.plan.session_steps
        progress = self.progress.of(decision=self.number, tried=tried, limit=self.judge.limit)
        for cycle in range(1 if steps else CYCLES):
            progress.after(self.steps + total).begin(length)
            loss = network.trainer.session(self._batches, length, (self.plan.seed, self.number, cycle))
            total += length
            sums = network.evaluate()
            ended = "completed" if np.isfinite(loss) and np.isfinite(sums).all() else "non-finite"
            with np.errstate(divide="ignore", invalid="ignore"):
                verdict = self.judge(in_blocks(sums), ended)
            progress.after(self.steps).evaluated(total, self.task.metric.score(sums))
            near = verdict.relative_loss <= NEAR * self.plan.tolerance
            if verdict.accepted or not near or not self._allows(total + length + self.plan.last_steps):
                break
        return Outcome(verdict, sums, ended, total, time.perf_counter() - started)

    def _accept(self, network: Network, outcome: Outcome, within: bool) -> None:
        """Go on with a network; compact it once that pays, and keep the compact one beside it."""
        model = network.compact()
        size = self.meter.size(network.graph, network.keep, model)
        score = self.task.metric.score(outcome.sums)
        self.state.points.append(FrontierPoint(self.number, size, score, within, model))
        if size.macs <= COMPACTED * network.graph.cost().macs:
            network = Network(network.compact(), self.task)
        self.state.network = network

    def _record(self, proposal: Proposal, outcome: Outcome, why: str) -> ChannelDecision:
        point, verdict = self.state.points[-1], outcome.verdict
        decision = ChannelDecision(
            number=self.number,
            round=self._round,
            target=proposal.target,
            tried=LAST if proposal.target == LAST else str(proposal),
            channels={name: len(numbers) for name, numbers in proposal.channels.items()},
            branches=proposal.branches,
            accepted=point.decision == self.number,
            within=verdict.accepted or (proposal.target == LAST and point.decision == self.number),
            reason=why,
            score=self.task.metric.score(outcome.sums),
            relative_loss=verdict.relative_loss,
            bound=verdict.bound,
            size=point.size,
            widths=self.state.network.widths,
            steps=outcome.steps,
            seconds=outcome.seconds,
        )
        self.state.decisions.append(decision)
        return decision


def in_blocks(sums: np.ndarray) -> np.ndarray:
    """Return the sums of at most so many blocks of neighbouring examples, which are resampled instead."""
    edges = np.unique(np.linspace(0, len(sums), MOST_BLOCKS, endpoint=False).astype(int))
    return np.add.reduceat(sums, edges)
