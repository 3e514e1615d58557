"""A trial, and the round that it is proposed in: what is known when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from selfscale.decisions import (
    GROWTH,
    INSERT_LAYER,
    REMOVE_LAYER,
    TRAIN,
    WIDEN,
    DecisionRecord,
    Filter,
    in_words,
)
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant
from selfscale.search.importance import Select
from selfscale.search_config import Minimization


@dataclass(frozen=True)
class Trial:
    """What the next decision is about; without filters, a session that alters nothing."""

    alteration: str
    filters: tuple[Filter, ...]
    steps: int
    selection_score: float = 0.0
    learning_rate: float | None = None  # peak of the session; None: that of the settings for training
    attempt: int = 0  # how often the removal of the same layer has failed
    spare: Redundant | None = None  # why a filter that is merged is redundant
    least_gain: float = 0.0  # by which growth has to be better, relative
    selection_steps: int = 0  # training steps that it took to choose it

    def __str__(self) -> str:
        return f"{self.alteration} {in_words(self.alteration, self.filters)}"

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
        """Training steps without early stopping or further cycles; frozen filters need a second cycle."""
        return self.steps * (2 if self.alteration == "disable_and_freeze" else 1)


@dataclass(frozen=True)
class Round:
    """State from which the next trial is chosen: the network accepted last, and all decisions so far.

    Limits of `settings` are those of removals: what growth took before does not count.
    """

    network: MaskedNetwork
    probe: Probe
    select: Select
    settings: Minimization
    seed: int
    records: Sequence[DecisionRecord]
    candidate: int = 0  # which of the trials that start from this state at once

    def of(self, candidate: int) -> Round:
        """Return the same round for one of its trials."""
        return replace(self, candidate=candidate)

    @property
    def number(self) -> int:
        """Number of the next decision."""
        return len(self.records) + 1

    @property
    def removals(self) -> list[DecisionRecord]:
        """Records without those of growth."""
        return [record for record in self.records if not record.grows]

    @property
    def failures(self) -> int:
        """Removals that were reverted, one after another, up to now."""
        return sum(1 for _ in takewhile(lambda record: not record.accepted, reversed(self.removals)))

    def rng(self, *stream: int) -> np.random.Generator:
        """Return the random numbers of this trial, of one `stream` per purpose."""
        # Seven numbers: no other trial's, whatever its streams.
        own = (0,) * (4 - len(stream)) + (self.candidate,) if self.candidate else ()
        return np.random.default_rng((self.seed, self.number, *stream, *own))

    def last_session(self) -> Trial:
        """Return the session after the last trial."""
        chosen = self.settings
        return Trial(TRAIN, (), chosen.last_session_steps, learning_rate=chosen.learning_rate)

    def allows(self, steps: int) -> bool:
        """Return whether so many more training steps are within the limit."""
        limit = self.settings.limits.steps
        return limit is None or sum(record.steps for record in self.removals) + steps <= limit

    def decisions_left(self) -> int:
        limit = self.settings.limits.decisions
        return self.settings.speculative if limit is None else max(0, limit - len(self.removals))

    def limit_reached(self) -> bool:
        """Return whether no further trial is allowed, however short."""
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
