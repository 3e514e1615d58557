"""Proposals: which removals are tried next; of layers first, then of filters, then of layers again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np

from selfscale.decisions import MERGE, REMOVE_LAYER, DecisionRecord, Filter, last_accepted, layers_of
from selfscale.nn import redundancy
from selfscale.nn.layer_removal import removable_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.search.importance import Subject, scores_of
from selfscale.search.trial import Round, Trial


def next_trials(round: Round) -> list[Trial]:
    """Return the next trial within the limits, or the last session, and what is tried beside it.

    Beside a trial of filters come those that would follow if it failed, `speculative` in all.
    """
    if not round.limit_reached():
        for trial, *beside in trials(round):
            if round.allows(trial.least_steps):
                fitting = [trial]
                for other in beside[: round.decisions_left() - 1]:
                    if round.allows(sum(one.least_steps for one in (*fitting, other))):
                        fitting.append(other)
                return fitting
    return [round.last_session()]


def trials(round: Round) -> Iterator[Sequence[Trial]]:
    """Yield what has not failed since the last accepted decision, in the order of trying.

    First whole hidden layers, which take no sessions filter by filter: all but one, then all but two,
    and so on, until a removal is accepted. When all of these have failed, redundant filters, then those
    that the strategy puts first. Single layers, and further tries of the same, come when no filter is
    left.
    """
    network, settings, records = round.network, round.settings, round.records
    tried = layer_tries(records)
    layers = removable_layers(network) if settings.layers.tries else []
    removals = round.removals
    count = min(len(layers), len(network.layers) - 1) - len(removals)
    if count > 0 and all(r.alteration == REMOVE_LAYER and not r.accepted for r in removals):
        yield [cheapest_layers(round, layers, count)]
    if not round.allows(settings.layers.steps):
        layers = []
    since = [record for record in records[last_accepted(records) :] if not record.grows]
    if all(record.alteration == REMOVE_LAYER for record in since):
        spare = redundancy.find(network, round.probe, round.probe.split.images)
        if spare:
            yield [Trial(MERGE, (spare.filter,), 0, spare=spare)]
    for alteration in settings.removal.alterations:
        found = filter_trials(round, alteration, layers)
        if found:
            yield found
    for layer in sorted(layers, key=lambda layer: tried.get(layer, 0)):
        if tried.get(layer, 0) < settings.layers.tries:
            yield [layer_trial(round, [layer], tried.get(layer, 0), 0.0)]


def filter_trials(round: Round, alteration: str, layers: Sequence[int]) -> list[Trial]:
    """Return trials of the filters that the strategy puts first, at most `speculative` of them.

    Each begins with the next best filter. The last filter of a layer that may be removed is a
    candidate, too: it stands for the layer, whose trial stands alone.

    Args:
        round: State to choose from.
        alteration: What is done to the filters.
        layers: Layers that may be removed.

    Returns:
        Empty if all candidates have failed, or too many one after another.
    """
    network, records, removal = round.network, round.records, round.settings.removal
    most = removal.max_failures
    if most is not None and round.failures >= most:
        return []
    last_ones = {
        Filter(layer, int(index))
        for layer in layers
        for index in np.flatnonzero(network.active[layer])
        if network.filters_kept[layer] == 1 and alteration != "reinitialize"
    }
    candidates = sorted({*network.removable(), *last_ones})
    failed = failures(records, alteration)
    if all(candidate in failed for candidate in candidates):
        return []
    last = next((record.filters[0] for record in reversed(records) if record.filters), None)
    weights = partial(redundancy.effective_weights, network)
    subject = Subject(candidates, network.active, weights, last, round.rng(0), round.probe)
    scores = scores_of(round.select, subject)
    order = [i for i in np.argsort(-scores, kind="stable").tolist() if candidates[i] not in failed]
    count = 1 if alteration == "reinitialize" else group_size(removal.group, records)
    found: list[Trial] = []
    for rank, position in enumerate(order[: round.settings.speculative]):
        best, score = candidates[position], float(scores[position])
        if best in last_ones:
            if not found:
                attempt = layer_tries(records).get(best.layer, 0)
                found = [layer_trial(round, [best.layer], attempt, score)]
            break
        chosen = first_removable([candidates[i] for i in order[rank:]], network, count)
        found.append(Trial(alteration, chosen, removal.steps, score, round.settings.learning_rate))
    return found


def failures(records: Sequence[DecisionRecord], alteration: str) -> set[Filter]:
    """Return the filters that failed by themselves since the last accepted decision.

    Accepted reinitializations do not count as one, or they could go on for ever: each filter has one
    until a removal is accepted.
    """
    since = last_accepted([r for r in records if alteration != "reinitialize" or r.alteration != alteration])
    return {
        record.filters[0]
        for record in records[since:]
        if len(record.filters) == 1 and record.alteration in (alteration, REMOVE_LAYER)
    }


def group_size(setting: Literal["adaptive"] | int, records: Sequence[DecisionRecord]) -> int:
    """Return how many filters to remove at once: adaptive doubles after a success; a failure halves."""
    size = start = 1 if setting == "adaptive" else setting
    for record in records:
        if record.alteration in ("disable", "disable_and_freeze"):
            tried = len(record.filters)
            grown = 2 * tried if setting == "adaptive" else start
            size = grown if record.accepted else max(1, tried // 2)
    return size


def first_removable(order: Sequence[Filter], network: MaskedNetwork, count: int) -> tuple[Filter, ...]:
    """Return the first `count` filters, without any that would leave its layer empty."""
    left = list(network.filters_kept)
    chosen: list[Filter] = []
    for filter in order:
        if len(chosen) < count and left[filter.layer] > 1:
            left[filter.layer] -= 1
            chosen.append(filter)
    return tuple(chosen)


def cheapest_layers(round: Round, layers: Sequence[int], count: int) -> Trial:
    """Return the removal of the layers without which, one by one, the training loss is least."""
    rng = round.rng(3)
    losses = {layer: loss_without(round.network, layer, round.probe, rng) for layer in layers}
    chosen = sorted(layers, key=losses.__getitem__)[:count]
    return layer_trial(round, chosen, 0, -losses[chosen[-1]])


def loss_without(network: MaskedNetwork, layer: int, probe: Probe, rng: np.random.Generator) -> float:
    """Return the loss without a layer on the probe's images, before any training."""
    return probe.loss_of(without_layer(network, layer, probe.split, 0, rng))


def layer_trial(round: Round, layers: Sequence[int], attempt: int, score: float) -> Trial:
    active, chosen = round.network.active, round.settings.layers
    filters = tuple(
        Filter(layer, int(index)) for layer in sorted(layers) for index in np.flatnonzero(active[layer])
    )
    return Trial(REMOVE_LAYER, filters, chosen.steps, score, chosen.learning_rate, attempt)


def layer_tries(records: Sequence[DecisionRecord]) -> dict[int, int]:
    """Return how often each layer alone was tried since the removal of a layer was accepted."""
    tried: dict[int, int] = {}
    for record in records:
        if record.alteration == REMOVE_LAYER:
            layer, *others = layers_of(record.filters)
            if record.accepted:
                tried = {}
            elif not others:
                tried[layer] = tried.get(layer, 0) + 1
    return tried
