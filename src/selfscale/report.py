"""The comparison of all minimizations: a table for people and one for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product, starmap
from typing import Any

from selfscale import files
from selfscale.config import Runs
from selfscale.workspace import REPORTS, Job

HEADER = (
    "task",
    "strategy",
    "seed",
    "filters",
    "parameters",
    "MACs/pixel",
    "validation score",
    "test score",
    "decisions",
    "kept",
    "stepped back",
    "training steps",
)


def read_results(runs: Runs) -> dict[str, dict[str, Any]]:
    """The results of all tasks, strategies and seeds by name; UserError names the stage of a missing one."""
    return {
        job.name: files.read_json(job.folder / "result.json", job.command)
        for job in starmap(Job, product(runs.tasks, runs.strategies, runs.seeds))
    }


def compare(runs: Runs) -> str:
    """Write `comparison.json` and `comparison.md`; returns the table, in Markdown."""
    results = read_results(runs)
    table = markdown([HEADER, *map(row, results.values())])
    files.write_json(REPORTS / "comparison.json", results)
    files.write_text(REPORTS / "comparison.md", table)
    return table


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table; scores are the task's loss, lower is better."""
    loss = result["loss"]

    def change(split: str) -> str:
        scores = result[split]
        return f"{loss} {scores['initial'][loss]:.4g} → {scores['final'][loss]:.4g}"

    return (
        result["task"],
        result["strategy"],
        str(result["seed"]),
        f"{numbers(result['filters_initial'])} → {numbers(result['filters_kept'])}",
        f"{result['parameters_initial']} → {result['parameters']}",
        f"{result['macs_per_pixel_initial']:g} → {result['macs_per_pixel']:g}",
        change("validation"),
        change("test"),
        str(result["decisions"]),
        str(result["accepted"]),
        str(result["reverted"]),
        str(result["training_steps"]),
    )


def numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"


def best(results: Mapping[str, dict[str, Any]], task: str) -> dict[str, Any]:
    """The task's smallest network (multiply-accumulates per pixel), and among equals the best on validation.

    All of them are within the tolerance, since the minimization steps back otherwise.
    """
    return min(
        [result for result in results.values() if result["task"] == task],
        key=lambda result: (result["macs_per_pixel"], result["validation"]["final"][result["loss"]]),
    )
