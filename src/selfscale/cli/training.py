"""The commands that train: a job of `runs` by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfscale.cli.answers import answer
from selfscale.cli.display import display
from selfscale.cli.loading import import_pipeline, load
from selfscale.cli.options import PARAMS, JsonOption, ParamsOption, SeedOption, TaskArgument
from selfscale.errors import UserError
from selfscale.paths import Baseline, Job, Training
from selfscale.settings import Settings

commands = typer.Typer()
StrategyOption = Annotated[
    str | None, typer.Option(help="Default: the first that does this.", show_default=False)
]


@commands.command()
def train(
    task: TaskArgument,
    seed: SeedOption = None,
    start: Annotated[
        str | None,
        typer.Option(help="Filters of the hidden layers (5,5). Default: network.widths.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Train the initial network until its score stagnates."""
    settings = load(params, task=task)
    pipeline = import_pipeline(settings.execution)
    training = Training(task, first(seed, settings), widths(start))
    with display() as progress:
        pipeline.train(settings, training, progress=progress)
    answer(as_json, training.read)


@commands.command()
def minimize(
    task: TaskArgument,
    strategy: StrategyOption = None,
    seed: SeedOption = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(help="Go on from this snapshot (.npz), whatever images it was made with."),
    ] = None,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Remove filters and layers while the score holds; goes on where it was killed."""
    settings = load(params, task=task, strategy=strategy)
    import_pipeline(settings.execution)
    from selfscale.pipeline import minimize as minimizing

    job = job_of(settings, task, strategy or settings.runs.strategies[0], seed)
    with display() as progress:
        minimizing.run_minimization(settings, job, snapshot=snapshot, progress=progress)
    answer(as_json, job.read)


@commands.command()
def scale(
    task: TaskArgument,
    strategy: StrategyOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Find the size from any start: train, grow, shrink."""
    settings = load(params, task=task, strategy=strategy)
    scaling = [name for name, chosen in settings.strategies.items() if chosen.scaling]
    if strategy is None and not scaling:
        raise UserError(f"{params}: strategies: none of them has `scaling: true`; add it to one")
    if strategy is not None and strategy not in scaling:
        raise UserError(f"{params}: strategies.{strategy}.scaling: is false; choose one of {scaling}")
    import_pipeline(settings.execution)
    from selfscale.pipeline import minimize as minimizing

    job = job_of(settings, task, strategy or scaling[0], seed)
    with display() as progress:
        ended = minimizing.scale(settings, job, progress)
    answer(as_json, job.read, ended)


@commands.command()
def worth(
    task: TaskArgument, seed: SeedOption = None, as_json: JsonOption = False, params: ParamsOption = PARAMS
) -> None:
    """Measure what each filter of a trained network is worth."""
    settings = load(params, task=task)
    import_pipeline(settings.execution)
    from selfscale.pipeline import worth as worth_report

    with display() as progress:
        report, table = worth_report.run_worth(settings, task, first(seed, settings), progress)
    answer(as_json, lambda: report, table)


@commands.command()
def budget(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Give each baseline the training steps of the longest minimization."""
    settings = load(params)
    from selfscale.pipeline import compare

    found = compare.budget(settings)
    answer(as_json, lambda: found)


@commands.command()
def baseline(
    task: TaskArgument, seed: SeedOption = None, as_json: JsonOption = False, params: ParamsOption = PARAMS
) -> None:
    """Train the untouched initial network for as long, to compare with."""
    settings = load(params, task=task)
    import_pipeline(settings.execution)
    from selfscale.pipeline.baseline import train_baseline

    work = Baseline(task, first(seed, settings))
    with display() as progress:
        train_baseline(settings, work, progress)
    answer(as_json, work.read)


def widths(start: str | None) -> tuple[int, ...]:
    """The numbers in `5,5`; raises UserError if it is anything else."""
    parts = start.split(",") if start is not None else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--start: expected filters of the hidden layers, as 5,5, not '{start}'")
    return tuple(map(int, parts))


def first(seed: int | None, settings: Settings) -> int:
    return settings.runs.seeds[0] if seed is None else seed


def job_of(settings: Settings, task: str, strategy: str, seed: int | None) -> Job:
    return Job(task, strategy, first(seed, settings), tuple(settings.strategies[strategy].start or ()))
