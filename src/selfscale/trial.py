"""What a decision is about, and what is known when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from selfscale.config import Minimization
from selfscale.probe import Probe
from selfscale.records import TRAIN, DecisionRecord, Filter
from selfscale.redundancy import Redundant
from selfscale.selection import Subject
from selfscale.switches import SwitchedNetwork

# Scores every candidate of a subject: a strategy with its arguments bound.
Select = Callable[[Subject], np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What the next decision is about; no filters: the last session, which alters nothing.

    `learning_rate` is the session's highest, None that of the settings for training.
    `attempt` counts the tries of removing the same layer, from 0. `spare` says what makes a filter
    that is merged redundant.
    """

    alteration: str
    filters: tuple[Filter, ...]
    steps: int
    selection_score: float = 0.0
    learning_rate: float | None = None
    attempt: int = 0
    spare: Redundant | None = None

    @property
    def removes(self) -> bool:
        """Whether the network is smaller after it."""
        return self.alteration not in (TRAIN, "reinitialize")

    @property
    def least_steps(self) -> int:
        """What it takes if its first cycle is not ended early; what is frozen at first needs a second one."""
        return self.steps * (2 if self.alteration == "disable_and_freeze" else 1)


@dataclass(frozen=True)
class Round:
    """The state from which the next trial is chosen: the network that was kept, and all that was decided."""

    network: SwitchedNetwork
    probe: Probe
    select: Select
    settings: Minimization
    seed: int
    records: Sequence[DecisionRecord]

    @property
    def number(self) -> int:
        """Of the decision that comes next."""
        return len(self.records) + 1

    def rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of this decision, of a `stream` for each purpose: they depend on nothing before."""
        return np.random.default_rng((self.seed, self.number, *stream))

    def allows(self, steps: int) -> bool:
        """Whether so many more training steps are within the limit."""
        limit = self.settings.limits.steps
        return limit is None or sum(record.session.steps for record in self.records) + steps <= limit

    def limit_reached(self) -> bool:
        """Whether there are to be no further trials, however short."""
        limits = self.settings.limits
        seconds = sum(record.session.seconds for record in self.records)
        return (
            (limits.decisions is not None and len(self.records) >= limits.decisions)
            or (limits.seconds is not None and seconds >= limits.seconds)
            or (
                limits.macs_per_pixel is not None
                and self.network.size().macs_per_pixel <= limits.macs_per_pixel
            )
        )
