"""Trials that alter filters: those that the strategy puts first, of what has not failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from selfscale.errors import UserError
from selfscale.nn.masking import MaskedNetwork
from selfscale.records import REMOVE_LAYER, DecisionRecord, Filter, last_accepted
from selfscale.search.importance import Subject
from selfscale.search.layer_trials import layer_trial, layer_tries
from selfscale.search.trial import Round, Trial

if TYPE_CHECKING:
    from selfscale.search.growth import GrowthSubject


def filter_trials(round: Round, alteration: str, layers: Sequence[int]) -> list[Trial]:
    """Trials of the best filters by the strategy, `speculative` of them; none if all or too many failed.

    Each begins with the next best filter. The last filter of one of `layers`, which may be removed, is
    a candidate, too: it stands for the layer, whose trial stands alone.
    """
    network, records, most = round.network, round.records, round.settings.removal.max_failures
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
    subject = Subject(candidates, network.active, network.filter_weights, last, round.rng(0), round.probe)
    scores = answer(round.select, subject)
    order = [i for i in np.argsort(-scores, kind="stable").tolist() if candidates[i] not in failed]
    count = 1 if alteration == "reinitialize" else group_size(round.settings.removal.group, records)
    found: list[Trial] = []
    for position in order[: round.settings.speculative]:
        best, score = candidates[position], float(scores[position])
        if best in last_ones:
            if not found:
                attempt = layer_tries(records).get(best.layer, 0)
                found = [layer_trial(round, [best.layer], attempt, score)]
            break
        rest = [candidates[i] for i in order[order.index(position) :]]
        chosen = first_that_may_go(rest, network, count)
        found.append(Trial(alteration, chosen, round.settings.removal.steps, score))
    return found


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


def first_that_may_go(order: Sequence[Filter], network: MaskedNetwork, count: int) -> tuple[Filter, ...]:
    """The first `count` filters, without any that would leave its layer empty."""
    left = list(network.filters_kept)
    chosen: list[Filter] = []
    for filter in order:
        if len(chosen) < count and left[filter.layer] > 1:
            left[filter.layer] -= 1
            chosen.append(filter)
    return tuple(chosen)


def answer(select: Callable[..., np.ndarray], subject: Subject | GrowthSubject) -> np.ndarray:
    """A strategy's scores, as numbers; raises UserError if they are no scores of the candidates."""
    scores, count = select(subject), len(subject.candidates)
    try:
        values = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape != (count,) or not np.isfinite(values).all():
        found = " ".join(np.array2string(np.asarray(scores), threshold=8).split())
        function = getattr(select, "func", select)  # arguments are bound by a partial
        name = getattr(function, "__name__", type(function).__name__)
        raise UserError(
            f"the strategy {name} must return one finite number for each of {count} candidates, not {found}"
        )
    return values
