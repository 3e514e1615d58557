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

from selfscale import __version__, files, schemas
from selfscale.cli import demo as cli_demo
from selfscale.cli import models as cli_models
from selfscale.cli import registry as cli_registry
from selfscale.cli import training as cli_training
from selfscale.cli.answers import answer
from selfscale.cli.loading import import_pipeline, load
from selfscale.cli.options import PARAMS, JsonOption, ParamsOption, TaskArgument
from selfscale.errors import UserError, counted, one_line
from selfscale.paths import INPUTS, PREPARED, REPORTS, TARGETS, store_root
from selfscale.processes import (
    clean_up_when_asked_to_end,
    import_tensorflow,
    own_environment,
    silent_stderr,
)
from selfscale.progress import log_to_stderr

app = typer.Typer(
    help="Train a small fully convolutional network for an image-processing task, then find the "
    "smallest network that still does it.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# The commands in the order of use, as `--help` shows them.
PANELS = {
    "Start here": ("demo", "repro", "doctor"),
    "Find the smallest network": (
        *("prepare", "targets", "train", "minimize"),
        *("budget", "baseline", "compare"),
    ),
    "Choose and register": ("curve", "pick", "register", "promote", "rollback"),
    "Use a network": ("apply", "export", "visualize", "ui"),
    "Rarely needed": ("scale", "worth", "inputs", "sync"),
}
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
    """Note the state of your folders and operators in data/inputs, for DVC."""
    settings = load(params)
    from selfscale.pipeline.inputs import look

    found = look(settings, INPUTS)
    answer(as_json, lambda: found)


@app.command()
def prepare(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Cut photographs into gray crops, split by photograph, in data/prepared."""
    settings = load(params)
    from selfscale.data import prepare as dataset

    manifest = dataset.prepare(settings.data, PREPARED)
    for split, counts in manifest["counts"].items():
        logging.info("%s: %s images of %s photographs", split, counts["images"], counts["photographs"])
    for skipped in manifest["skipped"]:
        logging.warning("skipped %s: %s", skipped["name"], skipped["reason"])
    answer(as_json, lambda: {key: value for key, value in manifest.items() if key != "images"})


@app.command()
def targets(task: TaskArgument, as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Compute the wanted output of each crop, in data/targets/TASK."""
    settings = load(params, task=task)
    from selfscale.data.targets import make_targets

    if settings.tasks[task].problem:
        import_tensorflow()
        from selfscale.pipeline.problems import describe

        made = describe(settings, task, TARGETS / task)
    else:
        made = make_targets(settings.tasks[task], PREPARED, TARGETS / task)
    answer(as_json, lambda: {"task": task, **made})


@app.command()
def compare(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Write the report: reports/index.html, tables and figures."""
    settings = load(params)
    import_pipeline(settings.execution)
    from selfscale.pipeline import compare as report

    page = report.compare(settings)
    answer(as_json, lambda: files.read_json(REPORTS / "comparison.json", "compare", schemas.Comparison), page)


@app.command()
def repro(
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Jobs side by side. Default: as many as fit.", show_default=False),
    ] = None,
    params: ParamsOption = PARAMS,
) -> None:
    """Run the whole pipeline: `dvc repro`, trainings side by side."""
    settings = load(params)
    from selfscale.pipeline.repro import repro

    repro(settings, jobs)


@app.command()
def sync(as_json: JsonOption = False) -> None:
    """Bring MLflow up to the results on disk, after `dvc pull` or a lost server."""
    from selfscale.tracking.sync import sync_project

    synced = sync_project(store_root())
    answer(as_json, lambda: {"synced": synced}, f"{counted(synced, 'run')} created or completed")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow's pages on runs and models; Ctrl-C ends it."""
    from selfscale.tracking.ui import serve_ui

    serve_ui(Path.cwd(), port)


@app.command()
def doctor(as_json: JsonOption = False, params: ParamsOption = PARAMS) -> None:
    """Check installation and project; name a remedy for each problem."""
    with silent_stderr():
        from selfscale.cli import doctor
        from selfscale.cli.findings import render

        findings = doctor.examine(lambda: load(params))
    problems = sum(finding.problem for finding in findings)
    found = [finding._asdict() for finding in findings]
    answer(as_json, lambda: {"problems": problems, "findings": found}, render(findings))
    if problems:
        raise typer.Exit(1)


def arrange() -> None:
    """Bring all commands into the order and the panels of PANELS."""
    rooms = (app, *(room.commands for room in (cli_demo, cli_models, cli_registry, cli_training)))
    found = {
        info.callback.__name__: info for room in rooms for info in room.registered_commands if info.callback
    }
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    app.registered_commands = [found[name] for name in panels]
    for name, panel in panels.items():
        found[name].rich_help_panel = panel


arrange()


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
        if any(word == "" or (word.startswith("--") and word.endswith("=")) for word in sys.argv[1:]):
            raise UserError("an argument is empty, as a shell's variable that is not set; name what is meant")
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
