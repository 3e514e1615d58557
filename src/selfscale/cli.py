"""The command line: each command is a stage of the pipeline, and usable by hand.

TensorFlow and MLflow are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from selfscale.errors import UserError

if TYPE_CHECKING:
    from selfscale.config import Settings

app = typer.Typer(
    help="Train a small fully convolutional network for an image-processing task, then find the "
    "smallest network that still does it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
TaskArgument = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]
ParamsOption = Annotated[Path, typer.Option("--params", help="The file of settings.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Default: the first of runs.seeds.", show_default=False)
]
PARAMS = Path("params.yaml")


@app.command()
def prepare(params: ParamsOption = PARAMS) -> None:
    """Photographs -> gray crops as arrays, split by photograph, in data/prepared."""
    from selfscale import dataset, workspace

    manifest = dataset.prepare(load(params).data, workspace.PREPARED)
    for split, counts in manifest["counts"].items():
        logging.info("%s: %s images of %s photographs", split, counts["images"], counts["photographs"])
    for skipped in manifest["skipped"]:
        logging.warning("skipped %s: %s", skipped["name"], skipped["reason"])


@app.command()
def targets(task: TaskArgument, params: ParamsOption = PARAMS) -> None:
    """The task's operator on every prepared image, in data/targets/TASK."""
    from selfscale import workspace
    from selfscale.targets import make_targets

    settings = load(params, task=task)
    make_targets(settings.tasks[task], workspace.PREPARED, workspace.TARGETS / task)


@app.command()
def train(task: TaskArgument, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """The long first training session of a network, until its score stagnates."""
    settings = load(params, task=task)
    pipeline = import_pipeline()

    with display(f"training {task}") as progress:
        pipeline.train(settings, task, first(seed, settings), progress)


@app.command()
def minimize(
    task: TaskArgument,
    strategy: Annotated[
        str | None, typer.Option(help="Default: the first of runs.strategies.", show_default=False)
    ] = None,
    seed: SeedOption = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(help="Go on from this snapshot (.npz), whatever images it was made with."),
    ] = None,
    params: ParamsOption = PARAMS,
) -> None:
    """Remove filters as long as the task is still done; a killed one goes on where it was."""
    settings = load(params, task=task, strategy=strategy)
    pipeline = import_pipeline()
    from selfscale.workspace import Job

    job = Job(task, strategy or settings.runs.strategies[0], first(seed, settings))
    with display(f"minimizing {job.name}") as progress:
        pipeline.run_minimization(settings, job, snapshot=snapshot, progress=progress)


@app.command()
def worth(task: TaskArgument, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """What each filter of a trained network is worth, in reports/worth-TASK-seed-SEED.json and .png."""
    settings = load(params, task=task)
    import_pipeline()
    from selfscale import worth_report

    number = first(seed, settings)
    with display(f"worth of {task}, seed {number}") as progress:
        table = worth_report.run_worth(settings, task, number, progress)
    typer.echo(table, nl=False)


@app.command()
def control(task: TaskArgument, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """Train the untouched initial network on for as many steps as its longest minimization took."""
    settings = load(params, task=task)
    import_pipeline()
    from selfscale.control import train_control

    with display(f"control of {task}") as progress:
        train_control(settings, task, first(seed, settings), progress)


@app.command()
def compare(params: ParamsOption = PARAMS) -> None:
    """The table of all minimizations, in reports/comparison.md and .json."""
    settings = load(params)
    from selfscale import report

    typer.echo(report.compare(settings), nl=False)


@app.command()
def register(params: ParamsOption = PARAMS) -> None:
    """Put each task's smallest network into the model registry, as champion of selfscale-TASK."""
    settings = load(params)
    pipeline = import_pipeline()

    for task in settings.runs.tasks:
        version = pipeline.register(settings, task)
        typer.echo(f"selfscale-{task} version {version}: champion")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow's pages on this project's runs and models; ends with Ctrl-C."""
    from selfscale.ui import serve_ui

    serve_ui(Path.cwd(), port)


def load(params: Path, task: str | None = None, strategy: str | None = None) -> Settings:
    """The checked settings, in which the task and the strategy exist."""
    from selfscale import config, operators, selection

    settings = config.load(params)
    for name, chosen in settings.tasks.items():
        where = f"{params}: tasks.{name}"
        operator = operators.resolve(chosen.operator, f"{where}.operator")
        operator.check(chosen.arguments, f"{where}.arguments")
        if chosen.loss == "soft_f1" and not operator.discrete:
            raise UserError(f"{where}.loss: soft_f1 needs a discrete operator; use mae or mse")
    for name, wanted in settings.strategies.items():
        selection.bind(wanted.select, wanted.arguments, f"{params}: strategies.{name}")
    if task is not None and task not in settings.tasks:
        raise UserError(config.unknown("task", task, settings.tasks))
    if strategy is not None and strategy not in settings.strategies:
        raise UserError(config.unknown("strategy", strategy, settings.strategies))
    return settings


def import_pipeline() -> ModuleType:
    """The stages that train, without the lines that TensorFlow's C++ part prints as it starts."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()  # else it looks for GPUs, and complains, later
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    # Every network without a layer is traced anew, which TensorFlow takes for a mistake.
    tensorflow.get_logger().setLevel("ERROR")
    from selfscale import pipeline

    return pipeline


def first(seed: int | None, settings: Settings) -> int:
    return settings.runs.seeds[0] if seed is None else seed


@contextmanager
def display(title: str) -> Iterator[Callable[[int, float], None] | None]:
    """A line on a terminal that shows the present step and score; nothing in a log file."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status(title) as status:
        yield lambda step, score: status.update(f"{title}: step {step}, validation score {score:.5g}")


def main() -> None:
    """Run a command; what the user can put right becomes one line on stderr and exit code 2."""
    # TensorFlow reports its start-up in many lines; a user's own choice stands.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # So that `with` blocks end as they should: locks, temporary files, MLflow runs.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"error: {error.filename or 'the disk'}: {os.strerror(error.errno)}", file=sys.stderr)
        sys.exit(2)
