"""MLflow runs as plain data: the points of sessions, decisions, tests and results, and results in words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from selfscale.errors import counted, redact
from selfscale.settings import Settings

MOST_PARAM = 6000  # characters of a parameter that MLflow takes
CHARTED = ("filters_kept", "parameters", "macs_per_pixel")  # of a result, what has a chart by decision


class Point(NamedTuple):
    """One value of a metric; `at` in seconds since 1970, None: when its run ended."""

    metric: str
    value: float
    step: int = 0
    at: float | None = None


class Picture(NamedTuple):
    """A file for MLflow's slider over the steps of `key`."""

    file: Path
    key: str
    step: int
    at: float | None


@dataclass(frozen=True)
class RunData:
    """A run with all that it shows; times in seconds since 1970, None: when the outermost run started."""

    name: str
    tags: Mapping[str, str]
    start: float | None
    end: float | None
    params: Mapping[str, Any]
    points: Sequence[Point]
    files: Sequence[Path] = ()
    children: Sequence[RunData] = ()


@dataclass(frozen=True)
class Clock:
    """When an execution did what, in seconds since 1970.

    `about` is the digest of its `run.json`, `content` that of the record it left; `shown` says that MLflow
    had its turn with all of it. `system` and each decision's `system` are samples of the machine:
    [[at, {name: value}], ...].
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, allow_inf_nan=False)  # where its file is read

    key: str
    started: float
    ended: float | None = None
    status: Literal["RUNNING", "FINISHED", "KILLED", "FAILED"] = "RUNNING"
    reason: str = ""
    about: str = ""
    content: str = ""
    shown: bool = False
    seconds: float = 0.0
    decisions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    system: Sequence[tuple[float, Mapping[str, float]]] = ()

    @property
    def last(self) -> float:
        """When it ended or, if it was killed, its last decision."""
        return self.ended or max([self.started, *(found["at"] for found in self.decisions.values())])


def as_points(values: Mapping[str, float | None], step: int = 0, at: float | None = None) -> list[Point]:
    """A point for each value, but for those that JSON has no number for."""
    return [Point(name, value, step, at) for name, value in values.items() if value is not None]


def flatten(values: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def facts(result: Mapping[str, Any]) -> dict[str, str]:
    """What a minimization came to, as tags: MLflow's tables cut numbers to three decimals, but not text.

    Short ones, for its narrow columns: the share of the initial multiply-accumulates, and the losses.
    """
    told = {"macs": f"{result['macs_per_pixel'] / result['macs_per_pixel_initial']:.0%}"}
    return told | {split: f"{result[split]['final'][result['loss']]:.4g}" for split in ("validation", "test")}


def changed(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are not the defaults, by their last words; tasks and strategies have no defaults."""
    sections = {name: Settings.model_fields[name].default for name in settings.keys() & Settings.model_fields}
    models = {name: each for name, each in sections.items() if isinstance(each, BaseModel)}
    defaults = flatten({name: each.model_dump(mode="json") for name, each in models.items()}, ".")
    found = {key: value for key, value in flatten(settings, ".").items() if defaults.get(key, value) != value}
    return {key.rpartition(".")[2]: text(value) for key, value in found.items()}


def of_result(result: Mapping[str, Any], step: int = 0) -> list[Point]:
    """The numbers in a result: `a_b` for `b` in `a`; for a list its sum `a` and its items `a_0`, `a_1`.

    MLflow draws a bar for what has step 0 only. What has a chart gets the chart's last `step`, since a run's
    table shows a metric's last value.
    """
    found: dict[str, float] = {}
    for key, value in flatten(result, "_").items():
        if isinstance(value, (int, float)) and key != "seed":  # the seed is a tag
            found[key] = value
        elif isinstance(value, Sequence) and all(isinstance(item, (int, float)) for item in value):
            found |= {key: sum(value)} | {f"{key}_{index}": item for index, item in enumerate(value)}
    charted = {key: found.pop(key) for key in CHARTED if key in found}
    return as_points(found) + as_points(charted, step)


def of_session(session: Mapping[str, Iterable[Sequence[Any]]]) -> list[Point]:
    """The curves of a session, `losses` and `scores` as (step, value)."""
    named = {"loss": session["losses"], "score": session["scores"]}
    steps = ((name, *pair) for name, curve in named.items() for pair in curve)
    return [point for name, step, value in steps for point in as_points({name: value}, step)]


def of_system(samples: Iterable[tuple[float, Mapping[str, float]]]) -> list[Point]:
    """What the machine did; by the prefix MLflow's pages know that it is shown apart."""
    return [
        Point(f"system/{name}", value, step, at)
        for step, (at, values) in enumerate(samples)
        for name, value in values.items()
    ]


def outcome(network: Mapping[str, Any]) -> dict[str, float | None]:
    """The size and score of a decision, or of the initial network, which has no limit; the score is last."""
    left = network["filters_kept"]
    size = {"filters_kept": sum(left), "layers_kept": layers(left)}
    return size | {key: network.get(key) for key in ("parameters", "macs_per_pixel", "limit", "score")}


def in_charts(network: Mapping[str, Any], step: int, at: float | None) -> list[Point]:
    """The same in the charts of a minimization, where step 0 is the initial network."""
    shown = outcome(network)
    if network.get("accepted", True):
        shown = {"score_accepted": network["score"]} | shown
    return as_points(shown, step, at)


def of_decision(decision: Mapping[str, Any], seconds: float | None) -> list[Point]:
    judged = {key: decision.get(key) for key in ("score_before_training", "relative_loss", "selection_score")}
    judged |= {"relative_loss_bound": decision["bound"], "seconds": seconds}
    return as_points(outcome(decision) | judged | decision["metrics"])


def of_test(test: Mapping[str, Any], seconds: float | None) -> list[Point]:
    """A test of an ablation: its curves, and what it measured."""
    found = {key: test[key] for key in ("reference", "score_before_training", "relearned")}
    found["seconds"] = seconds
    for name in ("difference", "against_baseline"):
        change = test[name] or {}
        found |= {name if key == "value" else f"{name}_{key}": value for key, value in change.items()}
    if successor := test["successor"]:
        found |= {"similarity": successor["similarity"], "similarity_before": successor["before"]}
    for movement in test["movements"]:
        found["moved_{}_{}".format(*movement["filter"])] = movement["distance"]
    return of_session(test["session"]) + as_points(found)


def layers(filters_kept: Sequence[int]) -> int:
    """How many hidden layers are left."""
    return sum(filters > 0 for filters in filters_kept)


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
        f"{counted(filters, 'filter')} in {counted(left, 'hidden layer')}, from {counted(was, 'filter')} in "
        f"{len(result['filters_initial'])}: {share:.0%} of the multiply-accumulates. "
        f"Its {loss} on the test images is {final:.4g}, the initial network's {initial:.4g}{change}; "
        "lower is better."
    )


def summary(result: Mapping[str, Any]) -> str:
    """A minimization's result in words and a table, as Markdown."""
    before, after = (", ".join(map(str, result[key])) for key in ("filters_initial", "filters_kept"))
    lines = [
        f"**Filters {before} → {after}**, "
        f"parameters {result['parameters_initial']} → {result['parameters']}, "
        f"multiply-accumulates per pixel {result['macs_per_pixel_initial']:g} → "
        f"{result['macs_per_pixel']:g}; "
        f"{counted(result['decisions'], 'decision')}, {result['accepted']} accepted, "
        f"{result['reverted']} reverted.",
        "",
        "| split | metric | initial | final |",
        "| --- | --- | --- | --- |",
    ]
    for split in ("validation", "test"):
        initial, final = result[split]["initial"], result[split]["final"]
        lines += [f"| {split} | {metric} | {initial[metric]:.4g} | {final[metric]:.4g} |" for metric in final]
    return "\n".join(lines)


def ablation_summary(report: Mapping[str, Any]) -> str:
    """What an ablation measured, and its session that alters nothing, in words."""
    baseline: Mapping[str, Any] = report["baseline"]
    change, ended = baseline["difference"], baseline["session"]["ended"]
    before, after = (as_number(baseline[key]) for key in ("score_before_training", "score"))
    low, value, high = (as_number(change[key]) for key in ("low", "value", "high"))
    ending = "" if ended == "completed" else f" (the session ended {ended})"
    return (
        f"Score: {report['loss']} on {report['validation_images']} validation images, lower is better; "
        f"the untouched network has {as_number(baseline['reference']):.4g}. Differences are relative, "
        f"with their {report['confidence']:.0%} intervals over the images; the baseline trained as long with "
        f"nothing altered.\n\nbaseline: score {before:.4g}, after the session {after:.4g}, "
        f"{value:+.1%} ({low:+.1%} to {high:+.1%}){ending}"
    )


def as_number(value: float | None) -> float:
    """What JSON has no number for is None there."""
    return math.nan if value is None else value


def text(value: Any) -> str:
    """A setting as text, without passwords, cut to what MLflow takes."""
    return redact(value if isinstance(value, str) else json.dumps(value))[:MOST_PARAM]
