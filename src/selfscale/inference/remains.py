"""What is left of each layer of a network: a cell for every filter that was ever there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.errors import UserError
from selfscale.inference.load import COMPACT
from selfscale.nn.fcn import blocks, filters_per_layer
from selfscale.records import MERGE, REMOVE_LAYER, Filter

REMOVING = ("disable", "disable_and_freeze", MERGE, REMOVE_LAYER)


class Cell(NamedTuple):
    """A filter's label, and its array; None if it was removed, as `note` says."""

    label: str
    values: NDArray[np.float32] | None
    note: str = ""


class Layers:
    """The layers of the initial network, and what is left of each.

    `removed` has a boolean array per hidden layer, `decisions` the number of the decision by which a
    filter went; the output layer is the last one.
    """

    def __init__(
        self, model: keras.Model, removed: Sequence[NDArray[np.bool_]], decisions: dict[Filter, int]
    ) -> None:
        self.blocks = blocks(model)
        self.removed = [*removed, np.zeros(self.blocks[-1].filters, bool)]
        self.decisions = decisions

    def __iter__(self) -> Iterator[tuple[int, str, int | None]]:
        """Number, title, and position among the layers that are there; None for a removed one."""
        position = 0
        for layer, removed in enumerate(self.removed):
            if removed.all():
                yield layer, f"layer {layer}: removed", None
                continue
            yield layer, f"layer {layer} ({self.blocks[position].convolution.name})", position
            position += 1

    def cells(self, layer: int, values: Sequence[NDArray[np.float32]]) -> list[Cell]:
        """A cell per filter of the initial network; `values` are those of the filters that are left."""
        left = iter(values)
        return [
            Cell(f"{layer}.{filter}", None, self.note(Filter(layer, filter)))
            if gone
            else Cell(f"{layer}.{filter}", next(left))
            for filter, gone in enumerate(self.removed[layer])
        ]

    def note(self, filter: Filter) -> str:
        return f"decision {self.decisions[filter]}" if filter in self.decisions else "removed"


def layers_of(model: keras.Model, path: Path) -> Layers:
    """With what was removed, if `path` is a minimization's `compact.keras`, with the other files beside it.

    Raises:
        UserError: the model is no chain of plain layers, or those files are of another one.
    """
    plain = [np.zeros(filters, bool) for filters in filters_per_layer(model)]
    files = [path.with_name(name) for name in ("removed_filters.npy", "decisions.json", "result.json")]
    if path.name != COMPACT or not all(file.is_file() for file in files):
        return Layers(model, plain, {})
    try:
        matrix = np.load(files[0], allow_pickle=False)
        records, result = (json.loads(file.read_text(encoding="utf-8")) for file in files[1:])
        widths = result["filters_grown"]  # as many as were ever there, initially or by growth
        removed = [row[:width] == 1 for row, width in zip(matrix, widths, strict=True)]
        decisions = {
            Filter(*filter): record["number"]
            for record in records
            if record["accepted"] and record["alteration"] in REMOVING
            for filter in record["filters"]
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path.parent}: removed_filters.npy, decisions.json or result.json is damaged"
        ) from error
    left = [int((~row).sum()) for row in removed if not row.all()]
    if left != [len(row) for row in plain]:
        raise UserError(f"{files[0]}: belongs to another network than {path.name}; minimize again")
    return Layers(model, removed, decisions)
