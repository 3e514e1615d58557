"""What to try next: layers first, then filters by the strategy, then layers again; else the last session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from selfscale.config import Minimization
from selfscale.errors import UserError
from selfscale.layers import removable_layers
from selfscale.records import REMOVE_LAYER, TRAIN, DecisionRecord, Filter, last_accepted
from selfscale.redundancy import Redundant
from selfscale.selection import Probe, Subject
from selfscale.switches import SwitchedNetwork

# Scores every candidate of a subject: a strategy with its arguments bound.
Select = Callable[[Subject], np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What the next decision is about; no filters: the last session, which alters nothing.

    `attempt` counts the tries of removing the same layer, from 0. `spare` says what makes a filter
    that is merged redundant.
    """

    alteration: str
    filters: tuple[Filter, ...]
    steps: int
    selection_score: float = 0.0
    attempt: int = 0
    spare: Redundant | None = None

    @property
    def removes(self) -> bool:
        """Whether the network is smaller after it."""
        return self.alteration not in (TRAIN, "reinitialize")


def next_trial(
    network: SwitchedNetwork,
    probe: Probe,
    select: Select,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
) -> Trial:
    """The next candidate that has not failed since the last change that was kept, or the last session.

    Each hidden layer is tried as a whole before its filters are, from the last one to the first:
    what is removed at once needs no sessions filter by filter. Further tries come when no filter is left.
    """
    if limit_reached(network, settings, records):
        return Trial(TRAIN, (), settings.last_session_steps)
    tried = layer_tries(records)
    layers = removable_layers(network)[::-1] if settings.layers.tries else []
    for layer in layers:
        if layer not in tried:
            return layer_trial(network, layer, settings, 0)
    for alteration in settings.removal.alterations:
        trial = filter_trial(network, probe, select, settings, seed, records, alteration, layers)
        if trial:
            return trial
    for layer in sorted(layers, key=lambda layer: tried[layer]):
        if tried[layer] < settings.layers.tries:
            return layer_trial(network, layer, settings, tried[layer])
    return Trial(TRAIN, (), settings.last_session_steps)


def limit_reached(
    network: SwitchedNetwork, settings: Minimization, records: Sequence[DecisionRecord]
) -> bool:
    limits = settings.limits
    steps = sum(record.session.steps for record in records)
    seconds = sum(record.session.seconds for record in records)
    return (
        (limits.decisions is not None and len(records) >= limits.decisions)
        or (limits.steps is not None and steps + settings.removal.steps > limits.steps)
        or (limits.seconds is not None and seconds >= limits.seconds)
        or (limits.macs_per_pixel is not None and network.size().macs_per_pixel <= limits.macs_per_pixel)
    )


def layer_tries(records: Sequence[DecisionRecord]) -> dict[int, int]:
    """How often each layer's removal was tried since one was kept."""
    tried: dict[int, int] = {}
    for record in records:
        if record.alteration == REMOVE_LAYER:
            layer = record.filters[0].layer
            tried = {} if record.accepted else tried | {layer: tried.get(layer, 0) + 1}
    return tried


def layer_trial(network: SwitchedNetwork, layer: int, settings: Minimization, attempt: int) -> Trial:
    filters = tuple(Filter(layer, int(index)) for index in np.flatnonzero(network.active[layer]))
    return Trial(REMOVE_LAYER, filters, settings.layers.steps, attempt=attempt)


def filter_trial(
    network: SwitchedNetwork,
    probe: Probe,
    select: Select,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
    alteration: str,
    layers: Sequence[int],
) -> Trial | None:
    """The best filters by the strategy, or None if all have failed.

    The last filter of a layer that may be removed is a candidate, too: it stands for the layer.
    """
    last_ones = {
        Filter(layer, int(index))
        for layer in layers
        for index in np.flatnonzero(network.active[layer])
        if network.filters_kept[layer] == 1 and alteration != "reinitialize"
    }
    candidates = sorted({*network.removable(), *last_ones})
    failed = failures(records, alteration)
    if all(candidate in failed for candidate in candidates):
        return None
    rng = np.random.default_rng((seed, len(records) + 1, 0))
    last = next((record.filters[0] for record in reversed(records) if record.filters), None)
    subject = Subject(candidates, network.active, network.filter_weights, last, rng, probe)
    scores = checked(select(subject), len(candidates))
    order = [i for i in np.argsort(-scores, kind="stable").tolist() if candidates[i] not in failed]
    best, score = candidates[order[0]], float(scores[order[0]])
    if best in last_ones:
        attempt = layer_tries(records).get(best.layer, 0)
        return replace(layer_trial(network, best.layer, settings, attempt), selection_score=score)
    count = 1 if alteration == "reinitialize" else group_size(settings.removal.group, records)
    chosen = first_that_may_go([candidates[i] for i in order], network, count)
    return Trial(alteration, chosen, settings.removal.steps, score)


def failures(records: Sequence[DecisionRecord], alteration: str) -> set[Filter]:
    """Filters that failed by themselves since the last change that was kept.

    Reinitializing a filter removes nothing and could go on for ever: one try for each until one is removed.
    """
    since = last_accepted([r for r in records if alteration != "reinitialize" or r.alteration != alteration])
    return {
        record.filters[0]
        for record in records[since:]
        if len(record.filters) == 1 and record.alteration in (alteration, REMOVE_LAYER)
    }


def group_size(setting: Literal["adaptive"] | int, records: Sequence[DecisionRecord]) -> int:
    """How many filters to remove at once: doubled after a success if adaptive, halved after a failure."""
    size = start = 1 if setting == "adaptive" else setting
    for record in records:
        if record.alteration in ("disable", "disable_and_freeze"):
            tried = len(record.filters)
            grown = 2 * tried if setting == "adaptive" else start
            size = grown if record.accepted else max(1, tried // 2)
    return size


def first_that_may_go(order: Sequence[Filter], network: SwitchedNetwork, count: int) -> tuple[Filter, ...]:
    """The first `count` filters, without any that would leave its layer empty."""
    left = list(network.filters_kept)
    chosen: list[Filter] = []
    for filter in order:
        if len(chosen) < count and left[filter.layer] > 1:
            left[filter.layer] -= 1
            chosen.append(filter)
    return tuple(chosen)


def checked(scores: np.ndarray, count: int) -> np.ndarray:
    """A strategy's scores, as numbers; raises UserError if they are no scores for `count` candidates."""
    try:
        values = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape != (count,) or not np.isfinite(values).all():
        found = " ".join(np.array2string(np.asarray(scores), threshold=8).split())
        raise UserError(
            f"the strategy must return one finite number for each of {count} candidates, not {found}"
        )
    return values
