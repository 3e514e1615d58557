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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfscale import __version__
from selfscale.errors import UserError

if TYPE_CHECKING:
    from selfscale.config import Execution, Settings

app = typer.Typer(
    help="Train a small fully convolutional network for an image-processing task, then find the "
    "smallest network that still does it.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
TaskArgument = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]
EachTaskArgument = Annotated[
    str | None,
    typer.Argument(
        help="A task of params.yaml. Without one: everything in `runs` that is not up to date, side by side.",
        show_default=False,
    ),
]
ParamsOption = Annotated[Path, typer.Option("--params", dir_okay=False, help="The file of settings.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Default: the first of runs.seeds.", show_default=False)
]
PARAMS = Path("params.yaml")
# Click's, which newer versions of Typer carry inside themselves.
UsageError: Any = typer.BadParameter.__bases__[0]
# Errors of the system that a user can put right.
PUT_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR}


@app.callback()
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(f"selfscale {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@app.command()
def prepare(params: ParamsOption = PARAMS) -> None:
    """Photographs -> gray crops as arrays, split by photograph, in data/prepared."""
    settings = load(params)
    from selfscale import dataset, workspace

    manifest = dataset.prepare(settings.data, workspace.PREPARED)
    for split, counts in manifest["counts"].items():
        logging.info("%s: %s images of %s photographs", split, counts["images"], counts["photographs"])
    for skipped in manifest["skipped"]:
        logging.warning("skipped %s: %s", skipped["name"], skipped["reason"])


@app.command()
def targets(task: TaskArgument, params: ParamsOption = PARAMS) -> None:
    """The task's operator on every prepared image, in data/targets/TASK."""
    settings = load(params, task=task)
    from selfscale import workspace
    from selfscale.targets import make_targets

    make_targets(settings.tasks[task], workspace.PREPARED, workspace.TARGETS / task)


@app.command()
def train(task: EachTaskArgument = None, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """The long first training session of a network, until its score stagnates."""
    settings = load(params, task=task)
    if task is None:
        not_without_task(seed=seed)
        from selfscale import stages

        return stages.train_all(settings)
    pipeline = import_pipeline(settings.execution)

    with display(f"training {task}") as progress:
        pipeline.train(settings, task, first(seed, settings), progress)


@app.command()
def minimize(
    task: EachTaskArgument = None,
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
    if task is None:
        not_without_task(strategy=strategy, seed=seed, snapshot=snapshot)
        from selfscale import stages

        return stages.minimize_all(settings)
    pipeline = import_pipeline(settings.execution)
    from selfscale.workspace import Job

    job = Job(task, strategy or settings.runs.strategies[0], first(seed, settings))
    with display(f"minimizing {job.name}") as progress:
        pipeline.run_minimization(settings, job, snapshot=snapshot, progress=progress)


@app.command()
def worth(task: TaskArgument, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """What each filter of a trained network is worth, in reports/worth-TASK-seed-SEED.json and .png."""
    settings = load(params, task=task)
    import_pipeline(settings.execution)
    from selfscale import worth_report

    number = first(seed, settings)
    with display(f"worth of {task}, seed {number}") as progress:
        table = worth_report.run_worth(settings, task, number, progress)
    typer.echo(table, nl=False)


@app.command()
def control(task: EachTaskArgument = None, seed: SeedOption = None, params: ParamsOption = PARAMS) -> None:
    """Train the untouched initial network on for as many steps as its longest minimization took."""
    settings = load(params, task=task)
    if task is None:
        not_without_task(seed=seed)
        from selfscale import stages

        return stages.control_all(settings)
    import_pipeline(settings.execution)
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
    pipeline = import_pipeline(settings.execution)

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


@app.command()
def doctor(params: ParamsOption = PARAMS) -> None:
    """What this installation and project have, and what to do about each problem (then: exit code 1)."""
    with silent_stderr():
        from selfscale import doctor

        findings = doctor.examine(lambda: load(params))
    typer.echo(doctor.render(findings), nl=False)
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)


def load(params: Path, task: str | None = None, strategy: str | None = None) -> Settings:
    """The checked settings, in which the task and the strategy exist."""
    from selfscale import config, operators

    settings = config.load(params)
    if task is not None and task not in settings.tasks:
        raise UserError(config.unknown("task", task, settings.tasks))
    if strategy is not None and strategy not in settings.strategies:
        raise UserError(config.unknown("strategy", strategy, settings.strategies))
    for name, chosen in settings.tasks.items():
        where = f"{params}: tasks.{name}"
        operator = operators.resolve(chosen.operator, f"{where}.operator")
        operator.check(chosen.arguments, f"{where}.arguments")
        if chosen.loss == "soft_f1" and not operator.discrete:
            raise UserError(f"{where}.loss: soft_f1 needs a discrete operator; use mae or mse")
    from selfscale import selection  # with numpy, so last: what is wrong before is told without it

    for name, wanted in settings.strategies.items():
        selection.bind(wanted.select, wanted.arguments, f"{params}: strategies.{name}")
    return settings


def import_pipeline(execution: Execution) -> ModuleType:
    """The stages that train; without the lines that TensorFlow prints as it starts."""
    with silent_stderr():
        import tensorflow

        tensorflow.config.list_physical_devices()  # else it looks for GPUs, and complains, later
    # Every network without a layer is traced anew, which TensorFlow takes for a mistake.
    tensorflow.get_logger().setLevel("ERROR")
    from selfscale import devices, pipeline

    devices.configure(execution)

    return pipeline


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Also what C++ code writes there, past Python's `sys.stderr`."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def not_without_task(**given: object) -> None:
    """Raises UserError if an option was given that says which one of a task's jobs to do."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"--{name}: says which of a task's to do; name the task, too")


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


def usage_line(error: Any) -> str:
    """What Click says about wrong words, in one line, with the command whose help tells more."""
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message} (see `{error.ctx.command_path if error.ctx else 'selfscale'} --help`)"


def main() -> None:
    """Run a command; what the user can put right becomes one line on stderr and exit code 2."""
    # TensorFlow reports its start-up in many lines; a user's own choice stands.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # So that `with` blocks end as they should: locks, temporary files, MLflow runs.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        print(f"error: {usage_line(error)}", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in PUT_RIGHT:
            raise
        print(f"error: {error.filename or 'the disk'}: {os.strerror(error.errno)}", file=sys.stderr)
        sys.exit(2)
