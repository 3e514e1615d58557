"""What to try next: layers first, then filters by the strategy, then layers again; else the last session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from selfscale import redundancy
from selfscale.config import Limits, Minimization
from selfscale.errors import UserError
from selfscale.layers import removable_layers, without_layer
from selfscale.probe import Probe
from selfscale.records import (
    MERGE,
    REMOVE_LAYER,
    TRAIN,
    DecisionRecord,
    Filter,
    last_accepted,
    layers_of,
)
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
    spare: redundancy.Redundant | None = None

    @property
    def removes(self) -> bool:
        """Whether the network is smaller after it."""
        return self.alteration not in (TRAIN, "reinitialize")

    @property
    def least_steps(self) -> int:
        """What it takes if its first cycle is not ended early; what is frozen at first needs a second one."""
        return self.steps * (2 if self.alteration == "disable_and_freeze" else 1)


def next_trial(
    network: SwitchedNetwork,
    probe: Probe,
    select: Select,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
) -> Trial:
    """The next trial that is within the limits, or the last session."""
    if not limit_reached(network, settings.limits, records):
        for trial in trials(network, probe, select, settings, seed, records):
            if allows(settings.limits, records, trial.least_steps):
                return trial
    return Trial(TRAIN, (), settings.last_session_steps)


def trials(
    network: SwitchedNetwork,
    probe: Probe,
    select: Select,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
) -> Iterator[Trial]:
    """What has not failed since the last change that was kept, in the order in which it is to be tried.

    First whole hidden layers: what is removed at once needs no sessions filter by filter. All but one
    go, when that has failed all but two, and so on, until something was kept. When every such trial
    has failed, filters go that add nothing of their own, then others, as the strategy says. Single
    layers, and further tries of the same, come when no filter is left.
    """
    tried = layer_tries(records)
    layers = removable_layers(network) if settings.layers.tries else []
    count = min(len(layers), len(network.layers) - 1) - len(records)
    if count > 0 and all(r.alteration == REMOVE_LAYER and not r.accepted for r in records):
        yield cheapest_layers(network, layers, count, probe, settings, seed, records)
    if not allows(settings.limits, records, settings.layers.steps):
        layers = []
    if all(record.alteration == REMOVE_LAYER for record in records[last_accepted(records) :]):
        spare = redundancy.find(network, probe, probe.split.images)
        if spare:
            yield Trial(MERGE, (spare.filter,), 0, spare=spare)
    for alteration in settings.removal.alterations:
        trial = filter_trial(network, probe, select, settings, seed, records, alteration, layers)
        if trial:
            yield trial
    for layer in sorted(layers, key=lambda layer: tried.get(layer, 0)):
        if tried.get(layer, 0) < settings.layers.tries:
            yield layer_trial(network, [layer], settings, tried.get(layer, 0), 0.0)


def limit_reached(network: SwitchedNetwork, limits: Limits, records: Sequence[DecisionRecord]) -> bool:
    seconds = sum(record.session.seconds for record in records)
    return (
        (limits.decisions is not None and len(records) >= limits.decisions)
        or (limits.seconds is not None and seconds >= limits.seconds)
        or (limits.macs_per_pixel is not None and network.size().macs_per_pixel <= limits.macs_per_pixel)
    )


def allows(limits: Limits, records: Sequence[DecisionRecord], steps: int) -> bool:
    """Whether so many more training steps are within the limit."""
    return limits.steps is None or sum(record.session.steps for record in records) + steps <= limits.steps


def layer_tries(records: Sequence[DecisionRecord]) -> dict[int, int]:
    """How often each layer's removal by itself was tried since a removal was kept."""
    tried: dict[int, int] = {}
    for record in records:
        if record.alteration == REMOVE_LAYER:
            layer, *others = layers_of(record.filters)
            if record.accepted:
                tried = {}
            elif not others:
                tried[layer] = tried.get(layer, 0) + 1
    return tried


def cheapest_layers(
    network: SwitchedNetwork,
    layers: Sequence[int],
    count: int,
    probe: Probe,
    settings: Minimization,
    seed: int,
    records: Sequence[DecisionRecord],
) -> Trial:
    """The removal of those layers without which, one by one, the loss on training images is least."""
    rng = np.random.default_rng((seed, len(records) + 1, 3))
    losses = {layer: loss_without(network, layer, probe, rng) for layer in layers}
    chosen = sorted(layers, key=losses.__getitem__)[:count]
    return layer_trial(network, chosen, settings, 0, -losses[chosen[-1]])


def loss_without(network: SwitchedNetwork, layer: int, probe: Probe, rng: np.random.Generator) -> float:
    """The loss without a layer on the probe's images, before any training."""
    return probe.loss_of(without_layer(network, layer, probe.images, probe.targets, 0, rng))


def layer_trial(
    network: SwitchedNetwork, layers: Sequence[int], settings: Minimization, attempt: int, score: float
) -> Trial:
    active = network.active
    filters = tuple(
        Filter(layer, int(index)) for layer in sorted(layers) for index in np.flatnonzero(active[layer])
    )
    chosen = settings.layers
    return Trial(REMOVE_LAYER, filters, chosen.steps, score, chosen.learning_rate, attempt)


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
        return layer_trial(network, [best.layer], settings, attempt, score)
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
