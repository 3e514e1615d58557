"""What a network costs: multiply-accumulates, parameters, milliseconds, bytes, or by the user's function."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from selfscale.errors import unknown
from selfscale.library.network import Network
from selfscale.library.result import Size
from selfscale.nn.graph import ChannelGraph, Group, Keep

COSTS = ("macs", "parameters", "milliseconds", "bytes")
RUNS = 30  # of which the median counts


@dataclass(frozen=True)
class CostMeter:
    """Measure networks by one cost.

    Args:
        cost: One of `COSTS`, or a function of a Keras model that returns a number, lower is better.
        example: Inputs of one example, which milliseconds are measured with.

    Raises:
        ValueError: The name is unknown.
    """

    cost: str | Callable[[keras.Model], float]
    example: Any = None

    def __post_init__(self) -> None:
        if not (callable(self.cost) or self.cost in COSTS):
            name = self.cost if isinstance(self.cost, str) else repr(self.cost)
            raise ValueError(f"{unknown('cost', name, COSTS)}, or a function of a model")

    @property
    def name(self) -> str:
        return self.cost if isinstance(self.cost, str) else getattr(self.cost, "__name__", "cost")

    @property
    def counted(self) -> bool:
        """Whether the cost follows from the channels alone, without a model that has only these."""
        return self.cost in ("macs", "parameters")

    def size(self, graph: ChannelGraph, keep: Keep, model: keras.Model | None = None) -> Size:
        """Return the size of a network without some channels; `model` has only the others."""
        counted = graph.cost(keep)
        if self.counted:
            return Size(counted.macs, counted.parameters, float(getattr(counted, str(self.cost))))
        return Size(counted.macs, counted.parameters, self.measured(model))

    def size_of(self, network: Network) -> Size:
        """Return the size of a network without its masked channels."""
        return self.size(network.graph, network.keep, None if self.counted else network.compact())

    def measured(self, model: Any) -> float:
        """Return the cost of a model.

        Raises:
            ValueError: The user's function returns no finite number.
        """
        if self.cost == "bytes":
            return float(file_bytes(model))
        if self.cost == "milliseconds":
            return milliseconds(model, self.example)
        found = self.cost(model) if callable(self.cost) else None
        try:
            number = float(found)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number) or number < 0:
            raise ValueError(f"cost: {self.name} must return a number of at least 0, not {found!r}")
        return number

    def savings(
        self,
        graph: ChannelGraph,
        keep: dict[int, np.ndarray],
        groups: list[Group],
        build: Callable[[Keep], keras.Model],
    ) -> list[float]:
        """Return how much cost goes with one channel of each group, at least 0.

        A counted cost is that of the next channel; a measured one is averaged over half of the group,
        in a network built for it.
        """
        found = []
        full = self.size(graph, keep, None if self.counted else build(keep)).cost
        for group in groups:
            left = np.flatnonzero(keep[group.index])
            gone = left[: 1 if self.counted else max(1, len(left) // 2)]
            mask = keep[group.index].copy()
            mask[gone] = False
            without = {**keep, group.index: mask}
            cost = self.size(graph, without, None if self.counted else build(without)).cost
            found.append(max(0.0, full - cost) / len(gone))
        return found


def file_bytes(model: keras.Model) -> int:
    """Return the size of the model's `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def milliseconds(model: keras.Model, example: Any) -> float:
    """Return the median time of a compiled call with one example."""
    call = tf.function(lambda x: model(x, training=False))
    call(example)
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call(example)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))
