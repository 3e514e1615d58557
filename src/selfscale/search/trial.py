"""What a decision is about, and what is known when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from selfscale.config import Minimization
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant
from selfscale.records import GROWTH, INSERT_LAYER, REMOVE_LAYER, TRAIN, WIDEN, DecisionRecord, Filter
from selfscale.search.importance import Subject

# Scores every candidate of a subject: a strategy with its arguments bound.
Select = Callable[[Subject], np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What the next decision is about; no filters: the last session, which alters nothing.

    `learning_rate` is the session's highest, None that of the settings for training.
    `attempt` counts the tries of removing the same layer, from 0. `spare` says what makes a filter
    that is merged redundant. `least_gain` is by how much growth has to be better, relative, and
    `selection_steps` the training steps that it took to choose it.
    """

    alteration: str
    filters: tuple[Filter, ...]
    steps: int
    selection_score: float = 0.0
    learning_rate: float | None = None
    attempt: int = 0
    spare: Redundant | None = None
    least_gain: float = 0.0
    selection_steps: int = 0

    @property
    def removes(self) -> bool:
        """Whether the network is smaller after it."""
        return self.alteration not in (TRAIN, "reinitialize", *GROWTH)

    @property
    def grows(self) -> bool:
        """Whether the network is larger after it."""
        return self.alteration in (WIDEN, INSERT_LAYER)

    @property
    def rebuilds(self) -> bool:
        """Whether it makes another network, with a trainer of its own."""
        return self.grows or self.alteration == REMOVE_LAYER

    @property
    def least_steps(self) -> int:
        """What it takes if its first cycle is not ended early; what is frozen at first needs a second one."""
        return self.steps * (2 if self.alteration == "disable_and_freeze" else 1)


@dataclass(frozen=True)
class Round:
    """The state from which the next trial is chosen: the network that was kept, and all that was decided.

    Limits of `settings` are those of removals: what growth took before does not count.
    """

    network: MaskedNetwork
    probe: Probe
    select: Select
    settings: Minimization
    seed: int
    records: Sequence[DecisionRecord]
    candidate: int = 0  # which of the trials that start from this state at once

    @property
    def removals(self) -> list[DecisionRecord]:
        """The records without those of growth."""
        return [record for record in self.records if not record.grows]

    @property
    def failures(self) -> int:
        """Trials of removal in a row that were not kept, up to now."""
        return sum(1 for _ in takewhile(lambda record: not record.accepted, reversed(self.removals)))

    def of(self, candidate: int) -> Round:
        """The same for one of the trials."""
        return replace(self, candidate=candidate)

    @property
    def number(self) -> int:
        """Of the decision that comes next."""
        return len(self.records) + 1

    def rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of this trial, of a `stream` for each purpose: they depend on nothing before."""
        # Seven numbers: no other trial's, whatever its streams.
        own = (0,) * (4 - len(stream)) + (self.candidate,) if self.candidate else ()
        return np.random.default_rng((self.seed, self.number, *stream, *own))

    def allows(self, steps: int) -> bool:
        """Whether so many more training steps are within the limit."""
        limit = self.settings.limits.steps
        return limit is None or sum(record.steps for record in self.removals) + steps <= limit

    def decisions_left(self) -> int:
        limit = self.settings.limits.decisions
        return self.settings.speculative if limit is None else max(0, limit - len(self.removals))

    def limit_reached(self) -> bool:
        """Whether there are to be no further trials, however short."""
        limits = self.settings.limits
        seconds = sum(record.session.seconds for record in self.removals)
        return (
            self.decisions_left() == 0
            or (limits.seconds is not None and seconds >= limits.seconds)
            or (
                limits.macs_per_pixel is not None
                and self.network.size().macs_per_pixel <= limits.macs_per_pixel
            )
        )
