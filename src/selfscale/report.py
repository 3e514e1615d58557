"""The comparison of all minimizations: tables and figures for people, and one file for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product, starmap
from pathlib import Path
from typing import Any

from selfscale import figures, files, statistics, tables
from selfscale.config import Runs, Settings
from selfscale.errors import UserError
from selfscale.frontier import read_benchmark
from selfscale.statistics import CONTROL
from selfscale.workspace import REPORTS, Job


def control_path(task: str, seed: int) -> Path:
    return Path("models/control") / f"{task}-seed-{seed}.json"


def jobs(runs: Runs) -> list[Job]:
    return list(starmap(Job, product(runs.tasks, runs.strategies, runs.seeds)))


def read_results(runs: Runs) -> dict[str, dict[str, Any]]:
    """The results of all tasks, strategies and seeds by name; UserError names the stage of a missing one."""
    return {job.name: files.read_json(job.folder / "result.json", job.command) for job in jobs(runs)}


def read_controls(runs: Runs, results: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The controls of all tasks and seeds by name.

    Raises:
        UserError: one is missing, or was trained on for fewer steps than a minimization took.
    """
    controls = {}
    for task, seed in product(runs.tasks, runs.seeds):
        path, command = control_path(task, seed), f"control {task} --seed {seed}"
        control = files.read_json(path, command)
        longest = max(results[Job(task, name, seed).name]["training_steps"] for name in runs.strategies)
        if control["steps"] < longest:
            raise UserError(
                f"{path}: has {control['steps']} steps, but a minimization took {longest}; "
                f"run `selfscale {command}` again"
            )
        controls[path.stem] = control
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
    return group | {CONTROL: [controls[control_path(task, seed).stem] for seed in runs.seeds]}


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
        model = job.folder / "compact.keras"
        if job.made_by.exists() and model.exists():
            made_by = files.read_json(job.made_by, job.command)
            if made_by["model"] == files.sha256(model):
                noted.append(made_by["seconds"])
    return seconds


def best(comparison: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The task's smallest network (multiply-accumulates per pixel), and among equals the best on validation.

    All of them are within the tolerance, since the minimization steps back otherwise.
    """
    return min(
        [result for result in comparison["results"].values() if result["task"] == task],
        key=lambda result: (result["macs_per_pixel"], statistics.score(result, "validation")),
    )
