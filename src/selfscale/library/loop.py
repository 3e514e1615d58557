"""The minimization of any model: try sizes in short sessions, train what is promising in a long one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from selfscale.library.cost import CostMeter
from selfscale.library.examples import Source
from selfscale.library.network import Network, Task
from selfscale.library.plan import Budget, Plan, State
from selfscale.library.result import BELOW, LAST, LONG, ChannelDecision, FrontierPoint
from selfscale.library.schedule import Schedule
from selfscale.nn.graph import trace
from selfscale.nn.rewriting import rewrite
from selfscale.progress import Progress
from selfscale.search.acceptance import RULES, Judge, Verdict, relative_loss
from selfscale.search.channel_search import ACCEPTED, FIRST_SHARE, PROMISING, Proposal, recovered

LOOKS = 3  # at a network of some channels: after a short session, and after two long ones
COMPACTED = 0.8  # of the multiply-accumulates, below which a new trace pays
MOST_BLOCKS = 2000  # that are resampled: of more examples, neighbours are added up
PLATEAU = 0.5  # of a long session: the learning rate stays high until its second half
FRONTIER, REVERTED = "for the frontier only", "reverted"
AGAIN = f", {LONG}"


class Session(NamedTuple):
    """What came of training a network."""

    verdict: Verdict
    sums: np.ndarray
    finite: bool
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
        self._source, self.progress = train, progress
        rule = RULES["non_inferiority"]
        self.judge = Judge(in_blocks(reference), plan.tolerance, rule, plan.confidence, LOOKS)
        self._batches = train.endlessly(plan.seed, skip=state.steps)
        self._next = Schedule(state, plan, train, meter)

    def run(self) -> Iterator[ChannelDecision]:
        """Yield each decision: the search, the last session, and what goes below the tolerance."""
        plan, decisions = self.plan, self.state.decisions
        while not any(each.target in (LAST, BELOW) for each in decisions):
            if proposal := self._next.propose():
                yield self._try(proposal)
            elif promising := self._next.promising():
                yield self._hold(promising)
            elif self.state.base.decision and self._next.left() > 0:
                yield self._last_session()
            else:
                break
        while plan.budget != Budget() and self._next.left() >= plan.session_steps:
            candidates = self._next.candidates()
            proposal = candidates.channels(BELOW, candidates.groups, FIRST_SHARE)
            if proposal is None or not proposal.saving:
                return
            yield self._try(proposal)

    def _try(self, proposal: Proposal) -> ChannelDecision:
        """Try a proposal in a short session; accept it, keep it beside if it is promising, or revert."""
        network = self.state.network
        before, trial = network.masks.state(), network
        if proposal.branches:
            trial = Network(network.compact(without=proposal.branches), self.task)
        else:
            network.disable(proposal.channels)
        session = self._train(trial, str(proposal), self.plan.session_steps)
        if proposal.target == BELOW:
            outcome = self._outcome(session, session.steps, 0, FRONTIER)
        else:
            outcome = self._outcome(session, session.steps, self._next.long(session.steps), REVERTED)
        if outcome != REVERTED:
            self._keep(trial, session, within=outcome == ACCEPTED)
        if outcome in (ACCEPTED, FRONTIER):
            self._go_on(trial)
        else:
            network.masks.restore(before)
        return self._record(proposal, str(proposal), session, outcome, self._reason(session, outcome))

    def _hold(self, promising: ChannelDecision) -> ChannelDecision:
        """Train a promising network in a long session; go on from it if it is within the tolerance."""
        given = self.state.point(promising.number).model
        graph = trace(given, trust_lambda=self.task.trust_lambda)
        network = Network(rewrite(given, graph, {}), self.task)
        tried = promising.tried.removesuffix(AGAIN) + AGAIN
        session = self._train(network, tried, self._next.long(), self._next.rate(promising.number), PLATEAU)
        trained = promising.steps + session.steps
        more = self._next.left() - session.steps if promising.target != LONG else 0
        outcome = self._outcome(session, trained, int(min(self.plan.long_steps, more)), FRONTIER)
        if outcome != REVERTED:
            self._keep(network, session, within=outcome == ACCEPTED)
        proposal = Proposal(LONG, promising.share, {}, promising.branches, 0.0)
        why = self._reason(session, outcome)
        decision = self._record(proposal, tried, session, outcome, why, promising.number)
        if outcome == ACCEPTED:
            self._go_on(network)
        return decision

    def _outcome(self, session: Session, trained: int, more: int, beyond: str) -> str:
        """Return what becomes of a network after `trained` steps, if `more` may follow."""
        if not session.finite:
            return REVERTED
        if session.verdict.accepted:
            return ACCEPTED
        loss, bound = session.verdict.relative_loss, session.verdict.bound
        likely = recovered(loss, trained, more) + (bound - loss) <= self.plan.tolerance
        return PROMISING if likely and more >= self.plan.session_steps else beyond

    def _last_session(self) -> ChannelDecision:
        """Train what is left with the steps that are left; go on from it if it is no worse."""
        network = self.state.network
        before, previous = network.masks.state(), network.evaluate()
        steps = int(min(self.plan.long_steps, self._next.left()))
        session = self._train(network, LAST, steps, self._next.rate(self.state.base.decision), PLATEAU)
        better = session.finite and relative_loss(session.sums, previous) <= 0
        if better:
            self._keep(network, session, within=True)
        else:
            network.masks.restore(before)
        why = "no worse than before it" if better else "worse than before it"
        return self._record(
            Proposal(LAST, 0.0, {}, (), 0.0), LAST, session, ACCEPTED if better else REVERTED, why
        )

    def _train(
        self, network: Network, tried: str, steps: int, rate: float = 1.0, plateau: float = 0.0
    ) -> Session:
        started = time.perf_counter()
        progress = self.progress.of(
            decision=self.state.number, tried=tried, limit=self._worse_by(self.plan.tolerance)
        )
        progress.after(self.state.steps).begin(steps)
        seed = self.plan.seed, self.state.number
        loss = network.trainer.session(self._batches, steps, seed, rate, plateau)
        sums = network.evaluate()
        finite = bool(np.isfinite(loss) and np.isfinite(sums).all() and network.finite())
        if not finite:
            self._source.check_finite(self.state.steps + steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            verdict = self.judge(in_blocks(sums), "completed" if finite else "non-finite")
        progress.after(self.state.steps).evaluated(steps, self.task.metric.score(sums))
        return Session(verdict, sums, finite, steps, time.perf_counter() - started)

    def _reason(self, session: Session, outcome: str) -> str:
        """Return in words why a trial was accepted or not, in the metric's own unit."""
        if not session.finite:
            return "the loss or a weight is not a finite number"
        worst, limit = map(self._worse_by, (session.verdict.bound, self.plan.tolerance))
        side = "at least" if self.task.metric.higher else "at most"
        within = "within" if session.verdict.accepted else "beyond"
        hope = ", but a long session may bring it back" if outcome == PROMISING else ""
        return f"{side} {worst:.4g} with confidence, {within} the limit of {limit:.4g}{hope}"

    def _worse_by(self, change: float) -> float:
        """Return the score, in the metric's own unit, that is relatively so much worse than the first."""
        first = self.state.points[0].score
        return first / (1 + change) if self.task.metric.higher else first * (1 + change)

    def _keep(self, network: Network, session: Session, within: bool) -> None:
        """Keep a compact copy of a trained network."""
        model = network.compact()
        size = self.meter.size(network.graph, network.keep, model)
        score = self.task.metric.score(session.sums)
        self.state.points.append(FrontierPoint(self.state.number, size, score, within, network.widths, model))

    def _go_on(self, network: Network) -> None:
        """Go on from a network; compact it once that pays."""
        if network.graph.cost(network.keep).macs <= COMPACTED * network.graph.cost().macs:
            network = Network(network.compact(), self.task)
        self.state.network = network

    def _record(
        self,
        proposal: Proposal,
        tried: str,
        session: Session,
        outcome: str,
        why: str,
        start: int | None = None,
    ) -> ChannelDecision:
        """Append a decision."""
        base = self.state.base
        decision = ChannelDecision(
            number=self.state.number,
            round=self._next.round,
            target=proposal.target,
            share=proposal.share,
            started_from=base.decision if start is None else start,
            tried=tried,
            channels={name: len(numbers) for name, numbers in proposal.channels.items()},
            branches=proposal.branches,
            outcome=outcome,
            reason=why,
            score=self.task.metric.score(session.sums),
            relative_loss=session.verdict.relative_loss,
            bound=session.verdict.bound,
            size=base.size,
            widths=base.widths,
            steps=session.steps,
            seconds=session.seconds,
        )
        if decision.gone_on:
            last = self.state.points[-1]
            decision = replace(decision, size=last.size, widths=last.widths)
        self.state.decisions.append(decision)
        return decision


def in_blocks(sums: np.ndarray) -> np.ndarray:
    """Return the sums of at most so many blocks of neighbouring examples, which are resampled instead."""
    edges = np.unique(np.linspace(0, len(sums), MOST_BLOCKS, endpoint=False).astype(int))
    return np.add.reduceat(sums, edges)
