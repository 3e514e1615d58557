"""`selfscale demo`: the whole pipeline on a small task, in a folder of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

import typer

from selfscale.cli.answers import answer
from selfscale.cli.display import display
from selfscale.cli.loading import import_pipeline, load
from selfscale.cli.options import PARAMS, JsonOption
from selfscale.errors import UserError

TASK, STRATEGY, SEED = "sobel", "cosine", 0
# Small enough for two minutes on two cores; what is not named has its default.
SETTINGS = """\
runs:
  tasks: [sobel]
  strategies: [cosine]
  seeds: [0]
data: {size: 128}
tasks:
  sobel: {operator: sobel, loss: mae}
training:
  first: {steps: 500, max_cycles: 4}
minimization:
  removal: {steps: 400}
  layers: {tries: 1, steps: 1200}
  last_session_steps: 600
  max_cycles: 1
  limits: {steps: 3200}
strategies:
  cosine: {select: cosine}
"""

commands = typer.Typer()


@commands.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="A new folder. Default: a temporary one.", show_default=False),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn to find edges, shrink the network, open a page with the result: two minutes, no project."""
    folder = (out or Path(tempfile.mkdtemp(prefix="selfscale-demo-"))).expanduser().absolute()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out: {folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        result = run()
    page = folder / "reports" / "index.html"
    score, loss = result["test"], result["loss"]
    words = (
        f"{result['macs_per_pixel_initial']:g} -> {result['macs_per_pixel']:g} MACs/pixel, "
        f"test error {score['initial'][loss]:.4f} -> {score['final'][loss]:.4f}\n"
        f"page: {page}\ngo on: cd {folder} && selfscale ui"
    )
    answer(as_json, lambda: {"folder": str(folder), "page": str(page), "result": result}, words)
    seen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not no_open and sys.stdout.isatty() and (seen or sys.platform != "linux"):
        webbrowser.open(page.as_uri())


def run() -> dict[str, Any]:
    """Run the stages in the working directory; returns the minimization's `result.json`."""
    from selfscale import files

    files.write_text(PARAMS, SETTINGS)
    settings = load(PARAMS)
    import_pipeline(settings.execution)
    from selfscale.data.prepare import prepare
    from selfscale.data.targets import make_targets
    from selfscale.paths import PREPARED, TARGETS, Baseline, Job, Training
    from selfscale.pipeline import compare
    from selfscale.pipeline.baseline import train_baseline
    from selfscale.pipeline.minimize import run_minimization
    from selfscale.pipeline.train import train

    job = Job(TASK, STRATEGY, SEED)
    prepare(settings.data, PREPARED)
    make_targets(settings.tasks[TASK], PREPARED, TARGETS / TASK)
    with display() as progress:
        train(settings, Training(TASK, SEED), progress=progress)
        run_minimization(settings, job, progress=progress)
        compare.budget(settings)
        train_baseline(settings, Baseline(TASK, SEED), progress)
    compare.compare(settings)
    return job.read()
