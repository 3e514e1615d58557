"""A minimization's decisions in words, from `decisions.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from selfscale.records import INSERT_LAYER, MERGE, REMOVE_LAYER, TRAIN_ON, WIDEN


class Decision(NamedTuple):
    """What was tried, whether it was kept, and why and what is left, as sentences."""

    number: int
    tried: str
    kept: bool
    outcome: str


def decision(record: Mapping[str, Any]) -> Decision:
    steps = record["session"]["steps"]
    trained = f": {plural(steps, 'training step')}" if steps else ""
    left = f"Filters left: {listed(record['filters_kept'])}; {plural(record['parameters'], 'parameter')}."
    outcome = f"{record['reason']}. {left}"
    return Decision(record["number"], f"{tried(record)}{trained}.", record["accepted"], outcome)


def tried(record: Mapping[str, Any]) -> str:
    """What the decision was about, as an order."""
    filters = record["filters"]
    if not filters:
        return (
            "Train on without a change"
            if record["alteration"] == TRAIN_ON
            else "Train what is left once more"
        )
    which, layers = by_layer(filters), sorted({layer for layer, _ in filters})
    new, where = plural(len(filters), "filter"), f"layer{'s' * (len(layers) > 1)} {listed(layers)}"
    words = {
        "disable": f"Switch off {which}",
        "disable_and_freeze": f"Switch off {which}, the other filters of the layer held fast at first",
        "reinitialize": f"Draw the weights of {which} anew",
        MERGE: f"Leave out {which}, which adds nothing of its own",
        REMOVE_LAYER: f"Remove {where} as a whole",
        WIDEN: f"Add {new} to {where}",
        INSERT_LAYER: f"Insert a layer of {new} as layer {layers[0]}",
    }
    return words[record["alteration"]]


def by_layer(filters: Sequence[Sequence[int]]) -> str:
    """`layer 0 filter 4, layer 1 filters 2 and 3`."""
    layers: dict[int, list[int]] = {}
    for layer, index in filters:
        layers.setdefault(layer, []).append(index)
    return ", ".join(
        f"layer {layer} filter{'s' * (len(found) > 1)} {listed(found)}" for layer, found in layers.items()
    )


def listed(values: Sequence[object]) -> str:
    """`1, 2 and 3`."""
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
