"""How a minimization goes, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from selfscale.library.network import Network
from selfscale.library.result import ChannelDecision, FrontierPoint
from selfscale.search.channel_importance import ChannelStrategy


class Budget(NamedTuple):
    """Training steps and seconds that all decisions may take; None: no limit."""

    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """How a minimization goes.

    Attributes:
        tolerance: Relative to the initial score.
        confidence: Of the test for non-inferiority.
        strategy: Importance of channels.
        protect: Layers that keep all channels.
        round_to: Widths are multiples of it.
        session_steps: Training steps of a trial.
        long_steps: Of a long session, at most.
        budget: Limits.
        seed: Seed.
    """

    tolerance: float
    confidence: float
    strategy: ChannelStrategy
    protect: tuple[str, ...]
    round_to: int
    session_steps: int
    long_steps: int
    budget: Budget
    seed: int


@dataclass
class State:
    """The network that one goes on from, all decisions, and the networks on the way."""

    network: Network
    decisions: list[ChannelDecision] = field(default_factory=list)
    points: list[FrontierPoint] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Of the next decision."""
        return len(self.decisions) + 1

    @property
    def steps(self) -> int:
        return sum(each.steps for each in self.decisions)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.decisions)

    @property
    def base(self) -> FrontierPoint:
        """The point of the network that one goes on from."""
        return self.point(max((each.number for each in self.decisions if each.gone_on), default=0))

    def point(self, decision: int) -> FrontierPoint:
        return next(point for point in self.points if point.decision == decision)
