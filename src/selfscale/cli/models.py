"""The commands that use a network: they need no settings, and work outside of a project, too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfscale.cli.answers import answer
from selfscale.cli.loading import import_pipeline
from selfscale.cli.options import JsonOption
from selfscale.config import Execution
from selfscale.errors import UserError, one_line
from selfscale.processes import import_tensorflow

if TYPE_CHECKING:
    from selfscale.inference.image_files import ImageFile

commands = typer.Typer()
ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A .keras file, a minimization's folder, an MLflow run's id, TASK@ALIAS, TASK@VERSION, or the "
        "registry's own name (models:/selfscale-TASK@ALIAS).",
        show_default=False,
    ),
]
PathsArgument = Annotated[
    list[str],
    typer.Argument(help="Image files, folders (searched recursively) or globs.", show_default=False),
]
FolderOption = Annotated[
    Path, typer.Option(file_okay=False, help="The folder for the results.", show_default=False)
]
QuantizeOption = Annotated[
    bool, typer.Option("--quantize", help="TFLite in 8-bit integers; says how much that changes.")
]
FastOption = Annotated[
    bool, typer.Option("--fast", help="A model that runs on blocks of pixels; says how fast it is.")
]
BlockOption = Annotated[
    str | None, typer.Option(help="Rows x columns of a block for --fast, as 2x2.", show_default=False)
]
NO_IMAGE = [None], "random inputs"
CALIBRATION = 32  # images from which the ranges of 8-bit integers are taken
FormatName = StrEnum("FormatName", ["keras", "saved_model", "tflite", "onnx"])
PaletteName = StrEnum("PaletteName", {"thesis": "thesis", "colour_blind": "colour-blind"})


@commands.command()
def apply(
    model: ModelArgument,
    paths: PathsArgument,
    out: FolderOption,
    as_json: JsonOption = False,
) -> None:
    """Apply a network to images of any size: PNG files in OUT."""
    from selfscale.inference import image_files
    from selfscale.inference import load as models

    pictures = image_files.find(paths, out)
    with models.find(model) as path:
        import_tensorflow()
        network = models.load(path, model, models.COLOUR)
    from selfscale.data.shards import progress
    from selfscale.inference.apply import apply_to_files

    report(progress(apply_to_files(network, pictures, out), "images", len(pictures)), pictures, out, as_json)


@commands.command()
def export(
    model: ModelArgument,
    to: Annotated[FormatName, typer.Option(help="The format.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file, or the folder of a saved_model.", show_default=False)],
    quantize: QuantizeOption = False,
    fast: FastOption = False,
    block: BlockOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network in another format, and check its output there."""
    from selfscale.inference import export as exporting
    from selfscale.inference import load as models

    if quantize and to != "tflite":
        raise UserError(f"--quantize: is for --to tflite only, not for {to.value}")
    if block and not fast:
        raise UserError("--block: is for --fast only")
    exporting.check_place(to.value, out)
    exporting.require(to.value)
    with models.find(model) as path:
        import_pipeline(Execution())  # one thread: milliseconds are compared with other formats
        read = models.load if quantize or fast else models.read  # these are for gray images
        network, task = read(path, model), models.task_of(model, path)
    from selfscale.inference import fast as blocking
    from selfscale.inference import samples

    on_blocks, shape = blocking.on_blocks(network, block) if fast else (None, "")
    (image, *_), source = samples.images("validation", 1) if models.takes_images(network) else NO_IMAGE
    calibration = samples.images("train", CALIBRATION)[0] if quantize else None
    written = exporting.export(network, to.value, out, image, calibration, on_blocks)
    logging.info("%s: %s, %s bytes", out, to.value, written.size)
    differs = "output differs from the Keras model's by at most %.2g, %.2g on average (on %s)"
    logging.info(differs, written.largest, written.mean, source)
    speed = blocking.gain(network, written.function, shape) if fast else None
    scores = samples.scores(task, network, written.function) if quantize and task else None
    for measured in filter(None, (speed, scores)):
        logging.info("%s", measured)
    content = {
        "path": str(out),
        "format": to.value,
        "quantized": quantize,
        "size": written.size,
        "largest_difference": written.largest,
        "mean_difference": written.mean,
        "compared_on": source,
        "scores": scores and scores._asdict(),
        "speed": speed and speed._asdict(),
    }
    answer(as_json, lambda: content)


@commands.command()
def visualize(
    model: ModelArgument,
    paths: PathsArgument,
    out: FolderOption,
    task: Annotated[
        str | None,
        typer.Option(help="Compare with what the operator of this task makes.", show_default=False),
    ] = None,
    params: Annotated[
        Path, typer.Option("--params", dir_okay=False, help="The file of settings, for --task.")
    ] = Path("params.yaml"),
    palette: Annotated[
        PaletteName, typer.Option(help="Of negative and positive values: red and green, or blue and orange.")
    ] = PaletteName.thesis,
    as_json: JsonOption = False,
) -> None:
    """Draw the kernels and outputs of every filter."""
    from selfscale.cli.loading import load

    settings = load(params, task=task) if task else None
    from selfscale.inference import image_files
    from selfscale.inference import load as models

    pictures = image_files.find(paths, out)
    with models.find(model) as path:
        import_tensorflow()
        from selfscale.data.shards import progress
        from selfscale.inference import layer_views
        from selfscale.inference import visualize as visualizing

        network = models.load(path, model)
        view = layer_views.read_view(network, path)
    target = visualizing.target_of(settings.tasks[task]) if settings and task else None
    done = visualizing.visualize(view, pictures, out, target, palette.value)
    report(progress(done, "images", len(pictures)), pictures, out, as_json)


def report(problems: Iterable[str | None], pictures: Sequence[ImageFile], out: Path, as_json: bool) -> None:
    """Print each picture's problem as it comes; exit code 1 if there was one."""
    skipped = []
    for picture, problem in zip(pictures, problems, strict=True):
        if problem:
            print(one_line(problem), file=sys.stderr)  # as it is now: a progress bar takes its place
            reason = problem.removeprefix(f"{picture.path}: skipped: ")
            skipped.append({"name": str(picture.path), "reason": reason})
    written, total = len(pictures) - len(skipped), len(pictures)
    logging.info("%s of %s images written to %s", written, total, out)
    answer(as_json, lambda: {"out": str(out), "written": written, "skipped": skipped})
    if skipped:
        raise typer.Exit(1)
