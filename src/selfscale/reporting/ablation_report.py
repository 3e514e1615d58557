"""The report of the stage `worth`: what each test of a filter came to, as data, table and heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from selfscale.decisions import Filter
from selfscale.inference.drawing import png
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Trainer
from selfscale.search.ablation import CONFIDENCE, TESTS, AblationRecord, ScoreChange

HEADER = (
    *("filter", "test", "score before the session", "after it", "difference to the untouched network"),
    *("to the baseline", "other filter that moved most", "most like the tested one was"),
)
NOT_TESTED = "not possible: it is the only filter of its layer"
COLUMN, ROW = 0.55, 0.22  # inches of a picture's cells


def content(trainer: Trainer, records: Sequence[AblationRecord]) -> dict[str, Any]:
    """The records as plain data, and what they were measured with; what is not a finite number is null."""
    baseline, *tests = (as_json(asdict(record)) for record in records)
    return {
        "loss": trainer.loss,
        "filters": list(trainer.network.filters_kept),
        "validation_images": len(trainer.validation.images),
        "confidence": CONFIDENCE,
        "reference": as_json(records[0].reference),
        "baseline": baseline,
        "tests": tests,
        "not_possible": [
            {"filter": filter, "test": test, "reason": NOT_TESTED}
            for filter, test, record in by_filter(trainer.network, records)
            if record is None
        ],
    }


def as_json(value: Any) -> Any:
    """Without the seconds, which vary: the same seed gives the same file."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def by_filter(
    network: MaskedNetwork, records: Sequence[AblationRecord]
) -> list[tuple[Filter, str, AblationRecord | None]]:
    """Every hidden filter with every test, and its record, None where it was not possible."""
    found = {(record.filter, record.test): record for record in records}
    return [(filter, test, found.get((filter, test))) for filter in network.hidden() for test in TESTS]


def caption(trainer: Trainer, records: Sequence[AblationRecord]) -> str:
    return (
        f"Score: {trainer.loss} on {len(trainer.validation.images)} validation images, lower is better; "
        f"the untouched network has {records[0].reference:.4g}. Differences are relative, with their "
        f"{CONFIDENCE:.0%} intervals over the images; the baseline trained as long with nothing altered."
    )


def line(record: AblationRecord) -> str:
    what = f"{record.test} {record.filter}" if record.filter else record.test
    scores = f"score {record.score_before_training:.4g}, after the session {record.score:.4g}"
    return f"{what}: {scores}, {interval(record.difference)}{ending(record)}"


def ending(record: AblationRecord) -> str:
    return "" if record.session.ended == "completed" else f" (the session ended {record.session.ended})"


def interval(difference: ScoreChange | None) -> str:
    if difference is None:
        return ""
    return f"{difference.value:+.1%} ({difference.low:+.1%} to {difference.high:+.1%})"


def table(network: MaskedNetwork, records: Sequence[AblationRecord]) -> list[tuple[str, ...]]:
    """The header, the baseline, and a row for each filter and test."""
    blank = ("",) * (len(HEADER) - 3)
    return [
        HEADER,
        row(records[0]),
        *(
            row(record) if record else (str(filter), test, NOT_TESTED, *blank)
            for filter, test, record in by_filter(network, records)
        ),
    ]


def row(record: AblationRecord) -> tuple[str, ...]:
    others = [movement for movement in record.movements if movement.filter != record.filter]
    farthest = max(others, key=lambda movement: movement.distance)
    return (
        str(record.filter or "none"),
        record.test,
        f"{record.score_before_training:.4g}",
        f"{record.score:.4g}{ending(record)}",
        interval(record.difference),
        interval(record.against_baseline),
        f"{farthest.filter}: {farthest.distance:.2g}" if farthest.distance else "none moved",
        likeness(record) if record.filter else "",
    )


def likeness(record: AblationRecord) -> str:
    """The absolute cosine similarity before and after the session; a reinitialized filter's own beside it."""
    heir = record.successor
    text = f"{heir.filter}: {heir.before:.2f} → {heir.similarity:.2f}" if heir else "no other filter"
    return text if record.relearned is None else f"{text}; itself {record.relearned:.2f}"


def heat_map(title: str, network: MaskedNetwork, records: Sequence[AblationRecord]) -> bytes:
    """A PNG: above what each test of each filter cost, below how far every filter moved in each session."""
    filters = network.hidden()
    heights = (2 * ROW * len(TESTS), ROW * len(records))
    size = (max(COLUMN * (len(filters) + 1) + 3.5, 8.0), sum(heights) + 2.5)
    cost = [record.difference.value if record else np.nan for *_, record in by_filter(network, records)]

    def draw() -> Figure:
        figure = Figure(size, layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=heights)
        figure.suptitle(f"{title}: worth of the filters\n{line(records[0])}", fontsize=9)
        show_cost(above, np.reshape(cost, (len(filters), len(TESTS))).T, filters)
        show_movements(below, records)
        return figure

    return png(draw, dpi=120)


def show_cost(axes: Axes, cost: np.ndarray, filters: Sequence[Filter]) -> None:
    """Relative differences, (tests, filters); colours end at 100 %, and gray was not possible."""
    limit = min(1.0, float(np.nanmax(np.abs(cost), initial=0.0))) or 1.0
    axes.set_facecolor("lightgray")
    image = axes.imshow(cost, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(cost):
        colour = "white" if abs(value) > 0.6 * limit else "black"
        text = "" if np.isnan(value) else f"{value:+.1%}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    label(axes, [short(filter) for filter in filters], list(TESTS))
    axes.set_title("Score after the session, relative to the untouched network", fontsize=8)
    scale = axes.figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:+.0%}")
    scale.ax.tick_params(labelsize=7)


def show_movements(axes: Axes, records: Sequence[AblationRecord]) -> None:
    """A row per session, a column per filter; the colour scale is a square root, to show small moves, too."""
    moved = np.array([[movement.distance for movement in record.movements] for record in records])
    image = axes.imshow(moved, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0), aspect="auto")
    rows = [f"{record.test} {short(record.filter)}" if record.filter else record.test for record in records]
    label(axes, [short(movement.filter) for movement in records[0].movements], rows)
    axes.set_title("How far each filter moved, relative to its length (last layer: output)", fontsize=8)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)


def label(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_xlabel("layer.filter", fontsize=7)


def short(filter: Filter) -> str:
    return f"{filter.layer}.{filter.index}"
