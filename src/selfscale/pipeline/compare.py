"""The comparison of all minimizations: tables and figures for people, and one file for programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product, starmap
from statistics import fmean
from typing import TYPE_CHECKING, Any

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.errors import UserError
from selfscale.paths import PREPARED, REPORTS, TARGETS, Baseline, Job
from selfscale.pipeline.execution import clock_of
from selfscale.pipeline.views import write_views
from selfscale.reporting import figures, pareto, statistics, tables
from selfscale.reporting.exhaustive import read_benchmark
from selfscale.reporting.html import Champion, html_page
from selfscale.reporting.statistics import BASELINE
from selfscale.settings import Runs, Settings

if TYPE_CHECKING:
    import keras

SHOWN_OF = 100  # validation images, of which the page shows one


def jobs(settings: Settings) -> list[Job]:
    """All minimizations of `runs`."""
    runs = settings.runs
    starts = {name: tuple(settings.strategies[name].start or ()) for name in runs.strategies}
    wanted = product(runs.tasks, runs.strategies, runs.seeds)
    return [Job(task, name, seed, starts[name]) for task, name, seed in wanted]


def read_results(settings: Settings) -> dict[str, dict[str, Any]]:
    """The results of all tasks, strategies and seeds by name; UserError names the stage of a missing one."""
    return {job.name: job.read() for job in jobs(settings)}


def shrinking(settings: Settings) -> list[str]:
    """The strategies that a baseline is for: those that only shrink, unless there are none."""
    names = settings.runs.strategies
    return [name for name in names if not settings.strategies[name].scaling] or names


def longest(settings: Settings, baseline: Baseline) -> int:
    """Training steps of the longest minimization of a task and seed that only shrinks."""
    minimizations = (Job(baseline.task, name, baseline.seed) for name in shrinking(settings))
    return max(1, *(job.read()["training_steps"] for job in minimizations))


def budget(settings: Settings) -> dict[str, int]:
    """Write how many training steps each baseline gets, in `models/budget`; returns them by name.

    A file for each, so that a further minimization that takes no longer than the others trains no
    baseline again.
    """
    found = {}
    for baseline in starmap(Baseline, product(settings.runs.tasks, settings.runs.seeds)):
        found[baseline.name] = longest(settings, baseline)
        files.write_json(baseline.budget, {"steps": found[baseline.name]})
    return found


def read_baselines(settings: Settings) -> dict[str, dict[str, Any]]:
    """The baselines of all tasks and seeds by name.

    Raises:
        UserError: one is missing, or was trained on for fewer steps than a minimization took.
    """
    baselines, runs = {}, settings.runs
    for chosen in starmap(Baseline, product(runs.tasks, runs.seeds)):
        baseline, took = chosen.read(), longest(settings, chosen)
        if baseline["steps"] < took:
            raise UserError(
                f"{chosen.output}: has {baseline['steps']} steps, but a minimization took {took}; "
                f"run `selfscale budget` and `selfscale {chosen.command}` again"
            )
        baselines[chosen.name] = baseline
    return baselines


def compare(settings: Settings) -> str:
    """Write `comparison.json`, `comparison.md`, `index.html` and figures; returns the Markdown.

    They depend on the results only, but for the times in `index.html` and `seconds.md`.
    """
    runs = settings.runs
    results = read_results(settings)
    baselines = read_baselines(settings)
    groups = {task: by_strategy(runs, task, results, baselines) for task in runs.tasks}
    reference = next((name for name in runs.strategies if settings.strategies[name].select == "random"), None)
    comparison = {
        "results": results,
        "baseline": baselines,
        "summary": {
            task: {name: statistics.summary(found) for name, found in group.items()}
            for task, group in groups.items()
        },
        "paired": {task: pairs(group, reference) for task, group in groups.items()},
    }
    chosen = {task: pareto.choose_by_rule(comparison, task, settings.registry) for task in runs.tasks}
    champions = {task: champion(settings, groups[task], results, chosen[task]) for task in runs.tasks}
    markdown = tables.markdown_page(comparison, len(runs.seeds))
    photographs = not all(settings.tasks[task].problem for task in runs.tasks)
    html = html_page(comparison, len(runs.seeds), champions, settings.registry, origin(photographs))
    files.write_json(REPORTS / "comparison.json", comparison)
    files.write_text(REPORTS / "comparison.md", markdown)
    for task, found in champions.items():
        files.write_bytes(REPORTS / "figures" / f"frontier-{task}.png", found.frontier)
    files.write_text(REPORTS / "index.html", html)
    write_views(groups, results, jobs(settings), chosen)
    files.write_text(REPORTS / "seconds.md", tables.seconds_page(read_seconds(settings), len(runs.seeds)))
    return markdown


def champion(
    settings: Settings,
    group: Mapping[str, Sequence[Any]],
    results: Mapping[str, Any],
    result: Mapping[str, Any],
) -> Champion:
    """What the page shows of a task, with the milliseconds that were or are measured."""
    # With TensorFlow, which other commands that read results do without.
    from selfscale.inference.latency import measured

    task, job, tolerance = result["task"], job_of(result, settings), settings.registry.tolerance
    of_task = [each for each in jobs(settings) if each.task == task]
    fronts = pareto.mean_fronts(of_task, results)
    benchmark = read_benchmark(settings, task)
    frontier = figures.frontier_figure(task, group, fronts, result, tolerance, benchmark)
    before = job.training.output / "initial.keras"
    initial = files.load_model(before, job.training.command)
    minimized = files.load_model(job.output / "compact.keras", job.command)
    shown = {} if settings.tasks[task].problem else pictures(task, initial, minimized, result)
    speeds = measured([each.output / "compact.keras" for each in of_task], before, job.command)
    took = {path: speed.ms_per_megapixel for path, speed in speeds.items()}
    means = {
        name: fmean(took[each.output / "compact.keras"] for each in of_task if each.strategy == name)
        for name in settings.runs.strategies
    }
    both = took[before], took[job.output / "compact.keras"]
    return Champion(job, shown, both, means | {BASELINE: took[before]}, frontier)


def pictures(
    task: str, initial: keras.Model, minimized: keras.Model, result: Mapping[str, Any]
) -> dict[str, bytes]:
    """What both networks make of a validation image, as PNG files by title."""
    from selfscale.inference.image_files import encode_png
    from selfscale.nn.fcn import to_image
    from selfscale.reporting.network_picture import before_and_after

    split = load_split(PREPARED, TARGETS / task, "validation")
    spread = split.targets[:SHOWN_OF].std(axis=(1, 2, 3), dtype=float)
    most = int(spread.argmax())  # where there is much to see
    shown = before_and_after(split.images[most], split.targets[most], initial, minimized, result)
    return {title: encode_png(to_image(values)) for title, values in shown.items()}


def origin(photographs: bool) -> str:
    """Date, commit and, where they were used, the photographs, in words."""
    parts = [f"{datetime.now():%Y-%m-%d %H:%M}"]
    if commit := git("rev-parse", "--short", "HEAD"):
        parts.append(f"commit {commit}")
        if git("status", "--porcelain", "--", ".", ":!dvc.lock"):
            parts.append("with changes")
    if photographs:
        data = files.read_json(PREPARED / "manifest.json", "prepare")
        counts = ", ".join(f"{count['images']} {split}" for split, count in data["counts"].items())
        parts.append(f"{data['source']} photographs ({data['size']} pixels; {counts})")
    return " · ".join(parts)


def git(*words: str) -> str:
    """What git prints; nothing outside of a repository, or without git."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def job_of(result: Mapping[str, Any], settings: Settings) -> Job:
    """The minimization of `runs` that came to a result."""
    return next(
        job
        for job in jobs(settings)
        if (job.task, job.strategy, job.seed) == (result["task"], result["strategy"], result["seed"])
    )


def by_strategy(
    runs: Runs, task: str, results: Mapping[str, Any], baselines: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """A task's results by strategy, and its baselines as one more, all in the order of the seeds."""
    group = {name: [results[Job(task, name, seed).name] for seed in runs.seeds] for name in runs.strategies}
    return group | {BASELINE: [baselines[Baseline(task, seed).name] for seed in runs.seeds]}


def pairs(group: Mapping[str, Sequence[Any]], reference: str | None) -> list[dict[str, Any]]:
    """Each strategy's paired differences to the `reference`, if there is one, and to the baseline."""
    return [
        {"strategy": name, "against": against, **statistics.paired(found, group[against])}
        for against in (reference, BASELINE)
        if against is not None
        for name, found in group.items()
        if name not in (against, BASELINE)
    ]


def read_seconds(settings: Settings) -> dict[tuple[str, str], list[float]]:
    """Seconds of each task's and strategy's minimizations, where the run that made the result noted them.

    What DVC took from its cache may have been made elsewhere, by another run than the one noted.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for job in jobs(settings):
        taken = seconds.setdefault((job.task, job.strategy), [])
        if found := clock_of(job):
            taken.append(found["seconds"])
    return seconds
