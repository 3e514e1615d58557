"""The command line: each command is a stage of the pipeline, and usable by hand.

TensorFlow and MLflow are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from selfscale import __version__
from selfscale.cli import models as cli_models
from selfscale.cli import registry as cli_registry
from selfscale.cli import training as cli_training
from selfscale.cli.answers import answer
from selfscale.cli.loading import load
from selfscale.cli.options import PARAMS, JsonOption, ParamsOption, TaskArgument
from selfscale.errors import UserError, one_line
from selfscale.processes import clean_up_when_asked_to_end, own_environment, silent_stderr
from selfscale.progress import log_to_stderr

app = typer.Typer(
    help="Train a small fully convolutional network for an image-processing task, then find the "
    "smallest network that still does it.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_training.commands)
app.add_typer(cli_models.commands)
app.add_typer(cli_registry.commands)
# Click's, which newer versions of Typer carry inside themselves.
UsageError: Any = typer.BadParameter.__bases__[0]


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
def inputs(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Note in data/inputs in which state your folders of images and your own operators are, for DVC."""
    settings = load(params)
    from selfscale import paths as workspace
    from selfscale.pipeline.inputs import look

    found = look(settings, workspace.INPUTS)
    answer(as_json, lambda: found)


@app.command()
def prepare(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Photographs -> gray crops as arrays, split by photograph, in data/prepared."""
    settings = load(params)
    from selfscale import paths as workspace
    from selfscale.data import prepare as dataset

    manifest = dataset.prepare(settings.data, workspace.PREPARED)
    for split, counts in manifest["counts"].items():
        logging.info("%s: %s images of %s photographs", split, counts["images"], counts["photographs"])
    for skipped in manifest["skipped"]:
        logging.warning("skipped %s: %s", skipped["name"], skipped["reason"])
    answer(as_json, lambda: {key: value for key, value in manifest.items() if key != "images"})


@app.command()
def targets(task: TaskArgument, as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """The task's operator on every prepared image, or its wanted outputs, in data/targets/TASK."""
    settings = load(params, task=task)
    from selfscale import paths as workspace
    from selfscale.data.targets import make_targets

    made = make_targets(settings.tasks[task], workspace.PREPARED, workspace.TARGETS / task)
    answer(as_json, lambda: {"task": task, **made})


@app.command()
def compare(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """The table of all minimizations, in reports/comparison.md and .json."""
    settings = load(params)
    from selfscale import files
    from selfscale.paths import REPORTS
    from selfscale.pipeline import compare as report

    page = report.compare(settings)
    answer(as_json, lambda: files.read_json(REPORTS / "comparison.json", "compare"), page)


@app.command()
def repro(
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Jobs side by side. Default: as many as fit.", show_default=False),
    ] = None,
    params: ParamsOption = PARAMS,
) -> None:
    """Run the whole pipeline: `dvc repro`, with the trainings of each stage side by side."""
    settings = load(params)
    from selfscale.pipeline.repro import repro

    repro(settings, jobs)


@app.command()
def sync(as_json: JsonOption = False) -> None:
    """Bring MLflow up to the results on disk: after `dvc pull`, or when its server was slow or away."""
    from selfscale.paths import store_root
    from selfscale.tracking.sync import sync_project

    synced = sync_project(store_root())
    answer(as_json, lambda: {"synced": synced}, f"{synced} runs created or completed")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow's pages on this project's runs and models; ends with Ctrl-C."""
    from selfscale.tracking.ui import serve_ui

    serve_ui(Path.cwd(), port)


@app.command()
def doctor(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """What this installation and project have, and what to do about each problem (then: exit code 1)."""
    with silent_stderr():
        from selfscale.cli import doctor

        findings = doctor.examine(lambda: load(params))
    problems = sum(finding.problem for finding in findings)
    found = [finding._asdict() for finding in findings]
    answer(as_json, lambda: {"problems": problems, "findings": found}, doctor.render(findings))
    if problems:
        raise typer.Exit(1)


def usage_line(error: Any) -> str:
    """What Click says about wrong words, in one line, with the command whose help tells more."""
    command = error.ctx.command_path if error.ctx else "selfscale"
    words = " ".join(error.format_message().split()).rstrip(".")
    return one_line(f"{words} (see `{command} --help`)")


def disk_line(error: OSError) -> str:
    """What the system says, with the path, and for a renamed file the path that it was to have."""
    path = error.filename2 or error.filename or "the disk"
    return one_line(f"{os.fsdecode(path) if isinstance(path, bytes) else path}: {error.strerror or error}")


def main() -> None:
    """Run a command; what the user can put right becomes one line on stderr and exit code 2."""
    own_environment()
    log_to_stderr()
    clean_up_when_asked_to_end()
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        message = usage_line(error)
    except UserError as error:
        message = str(error)
    except BrokenPipeError:  # who reads stdout, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno is None:  # a library's own, with a name of the system's
            raise
        message = disk_line(error)
    except MemoryError:
        message = "the memory does not suffice; end other programs, or choose smaller sizes"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
