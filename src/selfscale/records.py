"""What the core reports: one record per training session and per decision, plain data only.

Tracking, progress bars and result files are made from these records; the core knows none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Alterations that no setting names: of a whole layer, of a filter that adds nothing of its own,
# and the last session's, which alters nothing.
REMOVE_LAYER, MERGE, TRAIN = "remove_layer", "merge", "train"
# Those of growth: more filters in a layer, a layer more, and more training without either.
WIDEN, INSERT_LAYER, TRAIN_ON = "widen", "insert_layer", "train_on"
GROWTH = (WIDEN, INSERT_LAYER, TRAIN_ON)


class Filter(NamedTuple):
    """One filter (the thesis's "mask"): `layer` counts hidden convolution layers from 0."""

    layer: int
    index: int  # type: ignore[assignment]  # of the layer's filters; hides tuple.index

    def __str__(self) -> str:
        return f"layer {self.layer} filter {self.index}"


class GrowthStep(NamedTuple):
    """A way to grow: `filters` are the new ones, with their numbers in the grown network.

    `widen` adds them to one or several layers; `insert_layer` makes a layer of them, and the layers
    behind it get the next higher numbers.
    """

    alteration: str
    filters: tuple[Filter, ...]

    @property
    def layers(self) -> dict[int, int]:
        """How many of them each layer gets."""
        return Counter(filter.layer for filter in self.filters)


@dataclass(frozen=True)
class SessionRecord:
    """One training session.

    `losses` are (step, mean training loss since the entry before), `scores` are (step, validation
    score: the task's loss on the validation images, lower is better). `ended` is one of
    `completed`, `stagnated`, `sufficient`, `hopeless`, `dead` (the output is the same everywhere) and
    `non-finite`.
    """

    steps: int
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...]
    ended: str
    seconds: float


@dataclass(frozen=True)
class DecisionRecord:
    """One step of the minimization: what was tried, how it ended, and what is left after it.

    `alteration` is what was done to `filters`: one of `alterations.ALTERATIONS`, `remove_layer` (the
    filters are all that the layers had, one or several), `merge` (a filter that adds nothing of its
    own, without a session), `widen` or `insert_layer` (the filters are new), `train_on` or, for the
    last session, `train`, which alter nothing and have no filters.
    `started_from` is the number of the decision whose snapshot the trial started from (0: the
    initial network). `limit` is the score that the tolerance allows. `relative_loss` is the score
    after the session relative to the reference's, less one; `bound` is what the rule held against
    the tolerance. `metrics` are validation metrics after the session, `image_sums` the score's
    numerator and denominator for each validation image. `filters_kept` counts what is left of each
    hidden layer of the initial network, or, after a growth, of the grown one, whose layers and filters
    are then numbered alike; 0: the layer was removed. `selection_steps` are training steps that it
    took to choose what to try.
    """

    number: int
    alteration: str
    filters: tuple[Filter, ...]
    selection_score: float
    started_from: int
    limit: float
    score_before_training: float
    score: float
    relative_loss: float
    bound: float
    metrics: dict[str, float]
    image_sums: tuple[tuple[float, float], ...]
    accepted: bool
    reason: str
    filters_kept: tuple[int, ...]
    parameters: int
    macs_per_pixel: float
    session: SessionRecord
    selection_steps: int = 0

    @property
    def steps(self) -> int:
        """All training steps that the decision took."""
        return self.session.steps + self.selection_steps

    @property
    def grows(self) -> bool:
        """Whether it belongs to the growth that comes before all removals."""
        return self.alteration in GROWTH

    @property
    def tried(self) -> str:
        """What the decision was about, in words."""
        return in_words(self.alteration, self.filters)


def in_words(alteration: str, filters: Sequence[Filter]) -> str:
    """What an alteration of filters is about."""
    if alteration == TRAIN_ON:
        return "more training"
    layers = ", ".join(map(str, layers_of(filters)))
    if alteration in (WIDEN, INSERT_LAYER):
        return f"layer {layers}: {len(filters)} filters more"
    if alteration == REMOVE_LAYER:
        return f"layer {layers}"
    return ", ".join(map(str, filters)) or "last session"


def layers_of(filters: Sequence[Filter]) -> list[int]:
    """The layers that filters belong to, each once, in order."""
    return sorted({filter.layer for filter in filters})


def last_accepted(records: Sequence[DecisionRecord]) -> int:
    """The number of the last change that was kept; 0: the initial network."""
    return max((record.number for record in records if record.accepted), default=0)
