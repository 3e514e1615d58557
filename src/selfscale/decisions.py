"""Records of training sessions and decisions, as plain data: what the library reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from selfscale.errors import counted

# Alterations that no setting names: the removal of a layer, the merge of a redundant filter, and the
# last session, which alters nothing.
REMOVE_LAYER, MERGE, TRAIN = "remove_layer", "merge", "train"
# Those of growth: new filters, a new layer, and more training without either.
WIDEN, INSERT_LAYER, TRAIN_ON = "widen", "insert_layer", "train_on"
GROWTH = (WIDEN, INSERT_LAYER, TRAIN_ON)


class Filter(NamedTuple):
    """A filter (the thesis's "mask"); `layer` counts hidden convolution layers from 0."""

    layer: int
    index: int  # type: ignore[assignment]  # of the layer's filters; hides tuple.index

    def __str__(self) -> str:
        return f"layer {self.layer} filter {self.index}"


class GrowthStep(NamedTuple):
    """New filters, with their numbers in the grown network.

    `widen` adds them to one or several layers; `insert_layer` makes a layer of them, and the layers
    behind it get the next higher numbers.
    """

    alteration: str
    filters: tuple[Filter, ...]

    @property
    def layers(self) -> dict[int, int]:
        """Number of new filters of each layer."""
        return Counter(filter.layer for filter in self.filters)


@dataclass(frozen=True)
class SessionRecord:
    """One training session.

    `ended` is one of `completed`, `stagnated`, `sufficient`, `hopeless`, `dead` (the output is the same
    everywhere) and `non-finite`.
    """

    steps: int
    losses: tuple[tuple[int, float], ...]  # (step, mean training loss since the entry before)
    scores: tuple[tuple[int, float], ...]  # (step, validation loss)
    ended: str
    seconds: float


@dataclass(frozen=True)
class DecisionRecord:
    """One decision of a minimization: what was tried, how it ended, and what is left after it.

    `alteration` is one of `alterations.ALTERATIONS`, `remove_layer` (`filters` are all of the removed
    layers), `merge` (a redundant filter, without a session), `widen` or `insert_layer` (`filters` are
    new), `train_on` or, for the last session, `train`, which have no filters.
    """

    number: int
    alteration: str
    filters: tuple[Filter, ...]
    selection_score: float  # the strategy's score of the first filter
    started_from: int  # number of the decision whose network was altered; 0: the initial network
    limit: float  # validation loss that the tolerance allows
    score_before_training: float
    score: float  # validation loss after the session
    relative_loss: float  # that loss relative to the reference's, less one
    bound: float  # what the rule held against the tolerance
    metrics: dict[str, float]  # on the validation images, after the session
    photograph_sums: tuple[tuple[float, float], ...]  # of the loss: numerator and denominator per photograph
    accepted: bool
    reason: str
    # Filters left of each hidden layer of the initial network, 0: removed. After a growth, of the grown
    # one, whose layers and filters are numbered anew.
    filters_kept: tuple[int, ...]
    parameters: int
    macs_per_pixel: float
    session: SessionRecord
    selection_steps: int = 0  # training steps that it took to choose what to try

    @property
    def steps(self) -> int:
        """Training steps of the decision."""
        return self.session.steps + self.selection_steps

    @property
    def grows(self) -> bool:
        """Whether it belongs to the growth before all removals."""
        return self.alteration in GROWTH

    @property
    def tried(self) -> str:
        """What was tried, in words."""
        return in_words(self.alteration, self.filters)


def in_words(alteration: str, filters: Sequence[Filter]) -> str:
    """Return in words what an alteration is about."""
    if alteration == TRAIN_ON:
        return "more training"
    layers = ", ".join(map(str, layers_of(filters)))
    if alteration in (WIDEN, INSERT_LAYER):
        return f"layer {layers}: {counted(len(filters), 'filter')} more"
    if alteration == REMOVE_LAYER:
        return f"layer {layers}"
    return ", ".join(map(str, filters)) or "last session"


def layers_of(filters: Sequence[Filter]) -> list[int]:
    """Return the layers of filters, each once, in order."""
    return sorted({filter.layer for filter in filters})


def last_accepted(records: Sequence[DecisionRecord]) -> int:
    """Return the number of the last accepted decision; 0: the initial network."""
    return max((record.number for record in records if record.accepted), default=0)
