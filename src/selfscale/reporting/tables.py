"""The tables of the comparison; as Markdown here, and as HTML in `html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from statistics import fmean
from typing import Any, NamedTuple

from selfscale.decisions import Filter, in_words
from selfscale.reporting import statistics
from selfscale.reporting.statistics import FEWEST_SEEDS, Result, score

RESULT_HEADER = (
    *("task", "strategy", "seed", "filters", "parameters", "MACs/pixel", "validation score", "test score"),
    *("baseline's test score", "decisions", "accepted", "reverted", "training steps"),
)
BRIEF_HEADER = ("task", "network", "MACs per pixel", "ms", "test error", "vs baseline")
DECISION_HEADER = ("", "tried", "outcome", "filters left", "parameters", "training steps", "reason")
SUMMARY_HEADER = (
    *("strategy", "filters", "hidden layers", "parameters", "MACs/pixel", "validation score", "test score"),
    *("decisions", "training steps"),
)
PAIRED_HEADER = ("strategy", "against", "test score", "p", "MACs/pixel", "p", "training steps", "p")
READING = """\
Scores are the task's loss: lower is better. MACs/pixel are multiply-accumulates for each pixel. The
untouched baseline is the initial network trained on, without any removal, for as many steps as the
longest minimization of the same task and seed took (strategies with `scaling`, which may take
longer, do not count); where that made it worse on the validation images, it is the initial network
itself.
"""


class Table(NamedTuple):
    """Cells as text, and what there is to say about them."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown_page(comparison: Mapping[str, Any], seeds: int) -> str:
    """Return all of `comparison.md`."""
    parts = ["# Comparison of the minimizations\n", READING, as_markdown(result_table(comparison))]
    for task in comparison["summary"]:
        parts += [
            f"## {task}\n",
            f"![Test score against size](figures/frontier-{task}.png)\n",
        ]
        for table in task_tables(comparison, task, seeds):
            parts += [f"{table.note}\n", as_markdown(table)]
    return "\n".join(parts)


def summary_table(
    comparison: Mapping[str, Any], milliseconds: Mapping[str, tuple[float, Mapping[str, float]]]
) -> Table:
    """What fits a phone: initial network, baseline and strategies of all tasks, means over the seeds.

    `milliseconds` a megapixel takes the initial network of a task, and those of each strategy.
    """
    rows = []
    for task, strategies in comparison["summary"].items():
        found = [result for result in comparison["results"].values() if result["task"] == task]
        size = fmean(result["macs_per_pixel_initial"] for result in found)
        before = fmean(score(result, "test", "initial") for result in found)
        initially, means_of = milliseconds[task]
        rows.append((task, "initial", f"{size:g}", f"{initially:.3g}", f"{before:.4g}", ""))
        to_baseline = {
            each["strategy"]: plus_minus(each["test_score"], "+.0%")
            for each in comparison["paired"][task]
            if each["against"] == statistics.BASELINE
        }
        for name, means in strategies.items():
            macs, test = (plus_minus(means[key]) for key in ("macs_per_pixel", "test_score"))
            short, took = name.removeprefix("untouched "), f"{means_of[name]:.3g}"
            rows.append((task, short, macs, took, test, to_baseline.get(name, "")))
    return Table(
        "Means over the seeds; error: loss on the test images, lower is better; ms: milliseconds per "
        "megapixel on this machine, as selfscale applies a network",
        BRIEF_HEADER,
        rows,
    )


def decision_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """A row per decision, from `decisions.json`, in the words of the command line."""
    rows = [
        (
            str(record["number"]),
            f"{record['alteration']} {tried(record)}",
            "accepted" if record["accepted"] else "reverted",
            numbers(record["filters_kept"]),
            str(record["parameters"]),
            str(record["session"]["steps"]),
            record["reason"],
        )
        for record in records
    ]
    return Table("Decisions", DECISION_HEADER, rows)


def tried(record: Mapping[str, Any]) -> str:
    """What a decision was about, in words."""
    return record.get("tried") or in_words(record["alteration"], [*starmap(Filter, record["filters"])])


def result_table(comparison: Mapping[str, Any]) -> Table:
    """A row for each minimization."""
    baselines = {(found["task"], found["seed"]): found for found in comparison["baseline"].values()}
    results = comparison["results"].values()
    rows = [result_row(result, baselines[result["task"], result["seed"]]) for result in results]
    return Table("Every minimization, initial → final", RESULT_HEADER, rows)


def task_tables(comparison: Mapping[str, Any], task: str, seeds: int) -> tuple[Table, Table]:
    """The strategies of a task by themselves, and against each other and the baseline."""
    means = [
        (name, *(plus_minus(found[quantity]) for quantity in statistics.QUANTITIES))
        for name, found in comparison["summary"][task].items()
    ]
    paired = [paired_row(found) for found in comparison["paired"][task]]
    against = f"{task}: the strategies against each other and the baseline"
    return (
        Table(f"{task}: the strategies", SUMMARY_HEADER, means, interval_note(seeds)),
        Table(against, PAIRED_HEADER, paired, paired_note(seeds)),
    )


def result_row(result: Result, baseline: Result) -> tuple[str, ...]:
    """One minimization, initial → final."""

    def change(split: str) -> str:
        before, after = (score(result, split, network) for network in ("initial", "final"))
        return f"{result['loss']} {before:.4g} → {after:.4g}"

    return (
        result["task"],
        result["strategy"],
        str(result["seed"]),
        f"{numbers(result['filters_initial'])} → {numbers(result['filters_kept'])}",
        f"{result['parameters_initial']} → {result['parameters']}",
        f"{result['macs_per_pixel_initial']:g} → {result['macs_per_pixel']:g}",
        change("validation"),
        change("test"),
        f"{score(baseline, 'test'):.4g}",
        *(str(result[key]) for key in ("decisions", "accepted", "reverted", "training_steps")),
    )


def paired_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [found["strategy"], found["against"]]
    for name in statistics.DIFFERENCES:
        p = found[name]["p"]
        cells += [plus_minus(found[name], ".1%" if name == "test_score" else None)]
        cells += ["–" if p is None else f"{p:.3f}"]  # noqa: RUF001
    return tuple(cells)


def interval_note(seeds: int) -> str:
    if seeds == 1:
        return "One seed: no interval can be given, and nothing can be concluded from one run."
    return f"Mean over {seeds} seeds ± half the width of its 95 % interval (Student's t)."


def paired_note(seeds: int) -> str:
    note = (
        "Differences between runs of the same seed, their mean ± half the width of its 95 % interval; "
        "that of the test score is relative. Negative is better, smaller, shorter."
    )
    if seeds < FEWEST_SEEDS:
        return f"{note} With fewer than {FEWEST_SEEDS} seeds nothing can be concluded from them."
    return (
        f"{note} p is that of a two-sided sign-flip permutation test, not corrected for the number of "
        f"comparisons; with {seeds} seeds it cannot be below {2 ** (1 - seeds):.2g}."
    )


def seconds_page(found: Mapping[tuple[str, str], Sequence[float]], seeds: int) -> str:
    """Return all of `seconds.md`; `found` are seconds by task and strategy."""
    rows = [
        (task, strategy, f"{len(values)} of {seeds}", plus_minus(statistics.estimate(values)._asdict()))
        for (task, strategy), values in found.items()
    ]
    note = (
        "Seconds of training in a minimization, on the machine that it ran on and with whatever ran beside "
        f"it: compare training steps instead. {interval_note(seeds)}\n"
    )
    return "\n".join([note, markdown([("task", "strategy", "seeds noted", "seconds"), *rows])])


def plus_minus(found: Mapping[str, Any], form: str | None = None) -> str:
    """`mean ± half-width`; the mean alone, or a dash, where there is no more."""
    mean, half_width = found["mean"], found["half_width"]
    if mean is None:
        return "–"  # noqa: RUF001
    text = format(mean, form or digits(mean, 4))
    return (
        text
        if half_width is None
        else f"{text} ± {format(half_width, (form or digits(half_width, 3)).lstrip('+'))}"
    )


def digits(value: float, significant: int) -> str:
    return ".0f" if abs(value) >= 1000 else f".{significant}g"


def numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def as_markdown(table: Table) -> str:
    return markdown([table.header, *table.rows])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its header."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"
