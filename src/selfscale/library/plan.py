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
        session_steps: Training steps of a decision.
        last_steps: Of the last session.
        budget: Limits.
        seed: Seed.
    """

    tolerance: float
    confidence: float
    strategy: ChannelStrategy
    protect: tuple[str, ...]
    round_to: int
    session_steps: int
    last_steps: int
    budget: Budget
    seed: int


@dataclass
class State:
    """The network accepted last, all decisions, and the networks on the way."""

    network: Network
    decisions: list[ChannelDecision] = field(default_factory=list)
    points: list[FrontierPoint] = field(default_factory=list)
