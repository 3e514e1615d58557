"""The filters of a network, layer by layer, with those that a minimization removed: what there is to draw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from selfscale.decisions import MERGE, REMOVE_LAYER, Filter
from selfscale.errors import UserError
from selfscale.inference.load import COMPACT
from selfscale.nn.fcn import blocks, filters_per_layer

REMOVING = ("disable", "disable_and_freeze", MERGE, REMOVE_LAYER)
Floats = NDArray[np.float32]


class FilterView(NamedTuple):
    """A filter: its kernels by the channel that each reads, (height, width), and its output (H, W), if asked.

    A removed one has neither, and `note` says how it went.
    """

    label: str
    kernels: Mapping[int, Floats]
    output: Floats | None = None
    note: str = ""


class LayerView(NamedTuple):
    """A layer of the initial network; `reads` names the channels that are left for it to read."""

    number: int
    title: str
    filters: Sequence[FilterView]
    reads: Mapping[int, str]


class NetworkView:
    """A compact network as the initial one with gaps: filters and channels keep their numbers.

    Args:
        model: A chain of plain layers.
        removed: For each hidden layer, which of its filters are removed, boolean (filters,).
        decisions: The number of the decision that removed a filter, where it is known.
    """

    def __init__(
        self, model: keras.Model, removed: Sequence[NDArray[np.bool_]], decisions: Mapping[Filter, int]
    ) -> None:
        self.model, self.blocks, self.decisions = model, blocks(model), decisions
        self.removed = [*removed, np.zeros(self.blocks[-1].filters, bool)]

    @cached_property
    def _features(self) -> keras.Model:
        """The model with the outputs of all layers; named, so that no later model's name depends on it."""
        outputs = [block.layers[-1].output for block in self.blocks]
        return keras.Model(self.model.input, outputs, name="features")

    def layers(self, image: Floats | None = None) -> Iterator[LayerView]:
        """Yield every layer, the output layer last; with outputs for an image, (H, W) from 0 to 1."""
        outputs = [] if image is None else self._features(image[None, ..., None], training=False)
        reads, position = {0: "image"}, 0
        for number, removed in enumerate(self.removed):
            if removed.all():
                gone = [self._removed(Filter(number, index)) for index in range(len(removed))]
                yield LayerView(number, f"layer {number}: removed", gone, reads)
                continue
            convolution = self.blocks[position].convolution
            kernels = iter(np.moveaxis(np.asarray(convolution.kernel, np.float32), (-1, -2), (0, 1)))
            channels = iter(np.moveaxis(np.asarray(outputs[position])[0], -1, 0) if outputs else ())
            filters = [
                self._removed(Filter(number, index))
                if gone
                else FilterView(
                    f"{number}.{index}",
                    dict(zip(reads, next(kernels), strict=True)),
                    next(channels, None),
                )
                for index, gone in enumerate(removed)
            ]
            yield LayerView(number, f"layer {number} ({convolution.name})", filters, reads)
            reads = {index: view.label for index, view in enumerate(filters) if not view.note}
            position += 1

    def _removed(self, filter: Filter) -> FilterView:
        note = f"decision {self.decisions[filter]}" if filter in self.decisions else "removed"
        return FilterView(f"{filter.layer}.{filter.index}", {}, note=note)


def read_view(model: keras.Model, path: Path) -> NetworkView:
    """View a network with its removed filters, if `path` is a minimization's `compact.keras`.

    The other files of the minimization lie beside it.

    Raises:
        UserError: The model is no chain of plain layers, or those files are damaged or of another one.
    """
    present = [np.zeros(filters, bool) for filters in filters_per_layer(model)]
    files = [path.with_name(name) for name in ("removed_filters.npy", "decisions.json", "result.json")]
    if path.name != COMPACT or not all(file.is_file() for file in files):
        return NetworkView(model, present, {})
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
    if left != [len(row) for row in present]:
        raise UserError(f"{files[0]}: belongs to another network than {path.name}; minimize again")
    return NetworkView(model, removed, decisions)
