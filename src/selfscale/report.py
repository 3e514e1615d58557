"""The comparison of all minimizations: tables and figures for people, and one file for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product, starmap
from typing import Any

from selfscale import figures, files, made, statistics, tables
from selfscale.config import Runs, Settings
from selfscale.errors import UserError
from selfscale.frontier import read_benchmark
from selfscale.statistics import CONTROL
from selfscale.workspace import REPORTS, Control, Job


def jobs(runs: Runs) -> list[Job]:
    return list(starmap(Job, product(runs.tasks, runs.strategies, runs.seeds)))


def read_results(runs: Runs) -> dict[str, dict[str, Any]]:
    """The results of all tasks, strategies and seeds by name; UserError names the stage of a missing one."""
    return {job.name: files.read_json(job.output / "result.json", job.command) for job in jobs(runs)}


def longest(settings: Settings, control: Control) -> int:
    """Training steps of the longest minimization of a task and seed, among the settings' strategies."""
    runs = settings.runs.model_copy(update={"tasks": [control.task], "seeds": [control.seed]})
    return max(1, *(result["training_steps"] for result in read_results(runs).values()))


def read_controls(runs: Runs, results: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The controls of all tasks and seeds by name.

    Raises:
        UserError: one is missing, or was trained on for fewer steps than a minimization took.
    """
    controls = {}
    for chosen in starmap(Control, product(runs.tasks, runs.seeds)):
        control = files.read_json(chosen.output, chosen.command)
        took = max(
            results[Job(chosen.task, name, chosen.seed).name]["training_steps"] for name in runs.strategies
        )
        if control["steps"] < took:
            raise UserError(
                f"{chosen.output}: has {control['steps']} steps, but a minimization took {took}; "
                f"run `selfscale {chosen.command}` again"
            )
        controls[chosen.name] = control
    return controls


def compare(settings: Settings) -> str:
    """Write `comparison.json`, `comparison.md` and a figure for each task; returns the Markdown.

    They depend on the results only. `seconds.md`, which varies from run to run, is apart from them.
    """
    runs = settings.runs
    results = read_results(runs)
    controls = read_controls(runs, results)
    groups = {task: by_strategy(runs, task, results, controls) for task in runs.tasks}
    reference = next((name for name in runs.strategies if settings.strategies[name].select == "random"), None)
    comparison = {
        "results": results,
        "control": controls,
        "summary": {
            task: {name: statistics.summary(found) for name, found in group.items()}
            for task, group in groups.items()
        },
        "paired": {task: pairs(group, reference) for task, group in groups.items()},
    }
    pictures = {
        task: figures.size_figure(task, group, read_benchmark(settings, task))
        for task, group in groups.items()
    }
    page = tables.page(comparison, len(runs.seeds))
    files.write_json(REPORTS / "comparison.json", comparison)
    files.write_text(REPORTS / "comparison.md", page)
    for task, picture in pictures.items():
        files.write_bytes(REPORTS / "figures" / f"size-{task}.png", picture)
    files.write_text(REPORTS / "seconds.md", tables.seconds(read_seconds(runs), len(runs.seeds)))
    return page


def by_strategy(
    runs: Runs, task: str, results: Mapping[str, Any], controls: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """A task's results by strategy, and its controls as one more, all in the order of the seeds."""
    group = {name: [results[Job(task, name, seed).name] for seed in runs.seeds] for name in runs.strategies}
    return group | {CONTROL: [controls[Control(task, seed).name] for seed in runs.seeds]}


def pairs(group: Mapping[str, Sequence[Any]], reference: str | None) -> list[dict[str, Any]]:
    """Each strategy's paired differences to the strategy `reference`, if there is one, and to the control."""
    return [
        {"strategy": name, "against": against, **statistics.paired(found, group[against])}
        for against in (reference, CONTROL)
        if against is not None
        for name, found in group.items()
        if name not in (against, CONTROL)
    ]


def read_seconds(runs: Runs) -> dict[tuple[str, str], list[float]]:
    """Seconds of each task's and strategy's minimizations, where the run that made the result noted them.

    What DVC took from its cache may have been made elsewhere, by another run than the one noted.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for job in jobs(runs):
        noted = seconds.setdefault((job.task, job.strategy), [])
        if found := made.noted(job):
            noted.append(found["seconds"])
    return seconds


def best(comparison: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The task's smallest network (multiply-accumulates per pixel), and among equals the best on validation.

    All of them are within the tolerance, since the minimization steps back otherwise.
    """
    return min(
        [result for result in comparison["results"].values() if result["task"] == task],
        key=lambda result: (result["macs_per_pixel"], statistics.score(result, "validation")),
    )
