"""Write every filter's kernel and every layer's output of a network as image files (thesis 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfscale.data.operators import resolve
from selfscale.data.targets import apply_operator
from selfscale.data_config import Task
from selfscale.errors import UserError
from selfscale.files import write_bytes
from selfscale.inference import image_files
from selfscale.inference.drawing import (
    Palette,
    draw_comparison,
    draw_kernels,
    draw_network,
    draw_outputs,
    png,
)
from selfscale.inference.image_files import ImageFile
from selfscale.inference.layer_views import NetworkView

SIDE = 1024  # pixels: of larger images the middle is shown
Target = Callable[[NDArray[np.uint8], str], NDArray[Any]]
Figures = dict[str, Callable[[], Figure]]  # by the file's name


def kernel_figures(network: NetworkView, palette: Palette) -> Figures:
    """A figure per layer: each filter's kernel for each of the channels that it reads."""
    layers = network.layers()
    return {f"kernels-{layer.number}.png": partial(draw_kernels, layer, palette) for layer in layers}


def image_figures(
    network: NetworkView, gray: NDArray[np.uint8], name: str, target: Target | None, palette: Palette
) -> Figures:
    """A figure per layer, with its filters' outputs for an image; the whole network; and the comparison."""
    image = gray.astype(np.float32) / np.float32(255)
    layers = list(network.layers(image))
    wanted = None if target is None else target(gray, name).astype(np.float32)
    output = layers[-1].filters[0].output
    assert output is not None  # of the output layer nothing is removed
    same = wanted if wanted is not None and wanted.shape == output.shape else None
    return {
        **{f"output-{layer.number}.png": partial(draw_outputs, name, layer, palette) for layer in layers},
        "network.png": partial(draw_network, name, image, same, layers, palette),
        "comparison.png": partial(draw_comparison, name, image, wanted, output, palette),
    }


def visualize(
    network: NetworkView,
    files: Sequence[ImageFile],
    out: Path,
    target: Target | None,
    palette: Palette = "thesis",
) -> Iterator[str | None]:
    """Write the kernels of each layer, and for each image every output and the comparison.

    `out/kernels-LAYER.png`, and `out/NAME/output-LAYER.png`, `network.png` and `comparison.png`. Of images
    larger than 1024 x 1024 pixels the middle is shown.

    Yields:
        For each image in one line why it was skipped, or None.

    Raises:
        UserError: The operator fails.
    """
    for name, draw in kernel_figures(network, palette).items():
        write_bytes(out / name, png(draw))

    def write(whole: NDArray[np.uint8], file: ImageFile, place: Path) -> None:
        gray = middle(whole)
        title = f"the middle of {file.path.name}" if gray.size < whole.size else file.path.name
        for name, draw in image_figures(network, gray, title, target, palette).items():
            write_bytes(place.with_name(name), png(draw))

    yield from image_files.process(files, [out / file.name / "comparison.png" for file in files], write)


def target_of(task: Task) -> Target:
    """Return the function that makes an image's target as training has it.

    Raises:
        UserError: The task has no operator.
    """
    if task.operator is None:
        what = f"wanted outputs in {task.targets}" if task.targets else f"the problem {task.problem}"
        raise UserError(f"--task: has no operator, but {what}; leave it out")
    operator = resolve(task.operator)
    arguments = operator.check(task.arguments, f"{task.operator}.arguments")
    return lambda gray, name: apply_operator(operator, arguments, gray / 255, name)


def middle(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of an image, at most 1024 x 1024 pixels."""
    top, left = (max(0, (length - SIDE) // 2) for length in gray.shape)
    return gray[top : top + SIDE, left : left + SIDE]
