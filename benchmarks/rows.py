"""What the benchmarks share: rows of ratios, and the networks and images that they measure with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from selfscale import files
from selfscale.cli import loading
from selfscale.settings import Settings

TASK = "sobel"


@dataclass(frozen=True)
class Row:
    """One comparison: `ours` over `peer`, measured in turns, and what the peer was allowed.

    `at_most` or `at_least` is the target of the median ratio; None: there is none.
    """

    what: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    allowed: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def target(self) -> str:
        if self.at_most is not None:
            met = median(self.ratios) <= self.at_most
            return f"at most {self.at_most:g}: {'met' if met else '**missed**'}"
        if self.at_least is not None:
            met = median(self.ratios) >= self.at_least
            return f"at least {self.at_least:g}: {'met' if met else '**missed**'}"
        return ""

    def cells(self) -> tuple[str, ...]:
        def spread(values: Sequence[float]) -> str:
            low, high = min(values), max(values)
            middle = f"{median(values):.3g}"
            return middle if low == high else f"{middle} ({low:.3g} to {high:.3g})"

        units = f" {self.unit}"
        return (
            self.what,
            spread(self.ours) + units,
            spread(self.peer) + units,
            spread(self.ratios),
            self.target,
            "; ".join(text for text in (self.allowed, self.note) if text),
        )


def save(rows: Sequence[Row], path: Path) -> None:
    files.write_json(path, [asdict(row) for row in rows])


def load(path: Path) -> list[Row]:
    return [Row(**content) for content in files.read_json(path, "make bench")]


def settings() -> Settings:
    return loading.load(Path("params.yaml"), task=TASK)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turns(repetitions: int, *calls: Callable[[], float]) -> list[list[float]]:
    """What each call measures, in turns, so that whatever else the machine does meets all alike."""
    for call in calls:
        call()  # traces, compiles, fills caches
    results: list[list[float]] = [[] for _ in calls]
    for _ in range(repetitions):
        for call, found in zip(calls, results, strict=True):
            found.append(call())
    return results
