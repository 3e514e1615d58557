"""Every filter's kernel and every layer's output of a network, as picture files (thesis 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfscale.data.decoding import Unusable, decode_gray
from selfscale.data.operators import resolve
from selfscale.data.targets import apply_operator
from selfscale.errors import UserError
from selfscale.files import write_bytes
from selfscale.inference import picture_files
from selfscale.inference.apply import LARGEST
from selfscale.inference.drawing import draw_comparison, draw_kernels, draw_outputs, png
from selfscale.inference.picture_files import READABLE, Picture
from selfscale.inference.remains import Layers
from selfscale.settings import Task

SIDE = 1024  # pixels: of larger images the middle is shown
Target = Callable[[NDArray[np.uint8], str], NDArray[Any]]


def kernel_figures(layers: Layers) -> dict[str, Callable[[], Figure]]:
    """A figure per layer by its file's name; each filter's kernel for each of the inputs that it reads."""
    figures: dict[str, Callable[[], Figure]] = {}
    inputs = ["image"]
    for layer, title, position in layers:
        kernels: list[NDArray[np.float32]] = []
        if position is not None:
            kernels = list(np.moveaxis(np.asarray(layers.blocks[position].convolution.kernel), -1, 0))
        cells = layers.cells(layer, kernels)
        figures[f"kernels-{layer}.png"] = partial(draw_kernels, f"kernels, {title}", cells, inputs)
        if position is not None:
            inputs = [cell.label for cell in cells if cell.values is not None]
    return figures


def picture_figures(
    layers: Layers, features: keras.Model, gray: NDArray[np.uint8], name: str, target: Target | None
) -> dict[str, Callable[[], Figure]]:
    """A figure per layer by its file's name, with its filters' outputs for an image, and the comparison."""
    image = gray.astype(np.float32) / np.float32(255)
    outputs = [np.asarray(output)[0] for output in features(image[None, ..., None], training=False)]
    figures: dict[str, Callable[[], Figure]] = {}
    for layer, title, position in layers:
        channels = [] if position is None else list(np.moveaxis(outputs[position], -1, 0))
        cells = layers.cells(layer, channels)
        figures[f"output-{layer}.png"] = partial(draw_outputs, f"output for {name}, {title}", cells)
    wanted = None if target is None else target(gray, name).astype(np.float32)
    figures["comparison.png"] = partial(draw_comparison, name, image, wanted, outputs[-1][..., 0])
    return figures


def visualize(
    model: keras.Model, layers: Layers, pictures: Sequence[Picture], out: Path, target: Target | None
) -> Iterator[str | None]:
    """Write `out/kernels-LAYER.png`, and for each picture `out/NAME/output-LAYER.png` and `comparison.png`.

    Yields for each picture why it was skipped, in one line. Of images larger than 1024 x 1024 the middle
    is shown.

    Raises:
        UserError: the operator fails.
    """
    for file, draw in kernel_figures(layers).items():
        write_bytes(out / file, png(draw))
    features = keras.Model(model.input, [block.layers[-1].output for block in layers.blocks])
    targets = [out / picture.name / "comparison.png" for picture in pictures]
    for picture, place, problem in zip(
        pictures, targets, picture_files.problems(pictures, targets), strict=True
    ):
        if problem:
            yield problem
            continue
        try:
            whole = decode_gray(picture.path.read_bytes(), LARGEST, READABLE)
            gray = middle(whole)
            name = f"the middle of {picture.path.name}" if gray.size < whole.size else picture.path.name
            figures = picture_figures(layers, features, gray, name, target)
        except OSError as error:
            yield f"{picture.path}: skipped: unreadable: {error.strerror}"
        except Unusable as error:
            yield f"{picture.path}: skipped: {error}"
        else:
            for file, draw in figures.items():
                write_bytes(place.with_name(file), png(draw))
            yield None


def target_of(task: Task) -> Target:
    """What the task's operator makes of an image, as it is kept for training.

    Raises UserError if the task has none.
    """
    if task.operator is None:
        raise UserError(f"--task: has no operator, but wanted outputs in {task.targets}; leave it out")
    operator = resolve(task.operator)
    arguments = operator.check(task.arguments, f"{task.operator}.arguments")
    return lambda gray, name: apply_operator(operator, arguments, gray / 255, name)


def middle(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image, at most 1024 x 1024 pixels."""
    top, left = (max(0, (length - SIDE) // 2) for length in gray.shape)
    return gray[top : top + SIDE, left : left + SIDE]
