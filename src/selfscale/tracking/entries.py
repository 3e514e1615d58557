"""What MLflow shows of records, results and settings: points by step, parameters, names and words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from selfscale.records import DecisionRecord, SessionRecord

NAME_LENGTH = 120


class Point(NamedTuple):
    """One value of a metric."""

    metric: str
    value: float
    step: int = 0


def flatten(values: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def result_points(result: Mapping[str, Any], step: int) -> list[Point]:
    """The numbers in a result: `a_b` for `b` in `a`; for a list its sum `a` and its items `a_0`, `a_1`.

    They are given the last step, since a run's table shows a metric's last value.
    """
    points: list[Point] = []
    for key, value in flatten(result, "_").items():
        if isinstance(value, (int, float)) and key != "seed":  # the seed is a tag
            points.append(Point(key, value, step))
        elif isinstance(value, Sequence) and all(isinstance(item, (int, float)) for item in value):
            points.append(Point(key, sum(value), step))
            points += [Point(f"{key}_{index}", item, step) for index, item in enumerate(value)]
    return points


def curves(session: SessionRecord) -> list[Point]:
    losses = [Point("loss", value, step) for step, value in session.losses]
    return losses + [Point("score", value, step) for step, value in session.scores]


def outcome(record: DecisionRecord, step: int = 0) -> list[Point]:
    """The trial's score, and the size of what is left after it."""
    return [
        Point("score", record.score, step),
        Point("limit", record.limit, step),
        Point("filters_kept", sum(record.filters_kept), step),
        Point("layers_kept", layers(record.filters_kept), step),
        Point("parameters", record.parameters, step),
        Point("macs_per_pixel", record.macs_per_pixel, step),
    ]


def layers(filters_kept: Sequence[int]) -> int:
    """How many hidden layers are left."""
    return sum(filters > 0 for filters in filters_kept)


def kept(step: int, score: float, filters: int) -> list[Point]:
    """The network that was kept last: a chart over the decisions, and one over the number of its filters."""
    return [Point("kept/score", score, step), Point("kept/score_by_filters", score, filters)]


def initial(score: float, filters_kept: Sequence[int], parameters: int, macs_per_pixel: float) -> list[Point]:
    """Where the charts over the decisions begin: the initial network, as step 0."""
    filters = sum(filters_kept)
    return [
        Point("score", score),
        Point("filters_kept", filters),
        Point("layers_kept", layers(filters_kept)),
        Point("parameters", parameters),
        Point("macs_per_pixel", macs_per_pixel),
        *kept(0, score, filters),
    ]


def charted(record: DecisionRecord) -> list[Point]:
    """What a decision adds to the charts of its minimization."""
    own = kept(record.number, record.score, sum(record.filters_kept)) if record.accepted else []
    return [*outcome(record, record.number), *own]


def decision_points(record: DecisionRecord) -> list[Point]:
    return [
        *outcome(record),
        Point("score_before_training", record.score_before_training),
        Point("relative_loss", record.relative_loss),
        Point("relative_loss_bound", record.bound),
        Point("selection_score", record.selection_score),
        Point("seconds", record.session.seconds),
        *(Point(metric, value) for metric, value in record.metrics.items()),
    ]


def decision_params(record: DecisionRecord) -> dict[str, Any]:
    return {
        "alteration": record.alteration,
        "tried": record.tried,
        "layer": ", ".join(str(filter.layer) for filter in record.filters),
        "filter": ", ".join(str(filter.index) for filter in record.filters),
        "selection_score": record.selection_score,
        "started_from": record.started_from,
        "reason": record.reason,
    }


def verdict(record: DecisionRecord) -> str:
    return "accepted" if record.accepted else "reverted"


def decision_name(record: DecisionRecord) -> str:
    """`7 disable layer 1 filter 3 - reverted`, shortened where many filters are altered at once."""
    what = f"{record.number} {record.alteration} {record.tried}"
    return f"{textwrap.shorten(what, NAME_LENGTH, placeholder=' ...')} - {verdict(record)}"


def found(result: Mapping[str, Any]) -> str:
    """In one sentence, what a minimization came to."""
    filters, was = sum(result["filters_kept"]), sum(result["filters_initial"])
    left = layers(result["filters_kept"])
    share = result["macs_per_pixel"] / result["macs_per_pixel_initial"]
    loss = result["loss"]
    initial, final = result["test"]["initial"][loss], result["test"]["final"][loss]
    change = f" ({final / initial - 1:+.0%})" if initial else ""
    return (
        f"`{result['strategy']}`, seed {result['seed']}, found a network for {result['task']} with "
        f"{filters} filters in {left} hidden layers, from {was} filters in "
        f"{len(result['filters_initial'])}: {share:.0%} of the multiply-accumulates. "
        f"Its {loss} on the test images is {final:.4g}, the initial network's {initial:.4g}{change}; "
        "lower is better."
    )


def picture(run_id: str, path: str) -> str:
    """A file of the run as a picture in its description, where MLflow shows no picture from a data URI."""
    return f"![The network that was found](get-artifact?path={path}&run_uuid={run_id})"


def summary(result: Mapping[str, Any]) -> str:
    """A minimization's result in words and a table, as Markdown."""
    before, after = (", ".join(map(str, result[key])) for key in ("filters_initial", "filters_kept"))
    lines = [
        f"**Filters {before} → {after}**, "
        f"parameters {result['parameters_initial']} → {result['parameters']}, "
        f"multiply-accumulates per pixel {result['macs_per_pixel_initial']:g} → "
        f"{result['macs_per_pixel']:g}; "
        f"{result['decisions']} decisions, {result['accepted']} accepted, {result['reverted']} reverted.",
        "",
        "| split | metric | initial | final |",
        "| --- | --- | --- | --- |",
    ]
    for split in ("validation", "test"):
        initial, final = result[split]["initial"], result[split]["final"]
        lines += [f"| {split} | {metric} | {initial[metric]:.4g} | {final[metric]:.4g} |" for metric in final]
    return "\n".join(lines)
