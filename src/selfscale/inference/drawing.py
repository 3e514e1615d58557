"""Figures of kernels and outputs (thesis 3.1).

Negative values are red, positive ones green, and the brighter the larger: black is zero. All cells of a
figure share one scale, which its legend shows. Removed filters are crossed out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:  # so that other figures are drawn without TensorFlow
    from matplotlib.axes import Axes

    from selfscale.inference.layer_views import LayerView

Floats = NDArray[np.float32]

COLOURS = [(1, 0, 0), (0, 0, 0), (0, 1, 0)]
SIGNED = LinearSegmentedColormap.from_list("signed", COLOURS, N=511).with_extremes(bad="white")
COLUMNS = 5  # outputs side by side
DPI = 100
KERNEL, OUTPUT, PICTURE = 0.8, 2.4, 3.2  # inches of a cell's width
LARGEST = 60.0  # inches of a figure, for networks of hundreds of filters


class Cell(NamedTuple):
    """A labelled array of a mosaic; without values it is crossed out, with `note` in the middle."""

    label: str
    values: Floats | None
    note: str = ""


def png(draw: Callable[[], Figure], dpi: int = DPI) -> bytes:
    """Return a figure as a PNG file, with the same bytes each time, whatever a user's own style."""
    content = io.BytesIO()
    with matplotlib.style.context("default"):
        draw().savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def draw_kernels(layer: LayerView) -> Figure:
    """A column per filter, a row per channel that it reads."""
    rows = [
        [Cell("", filter.kernels.get(channel), "" if row else filter.note) for filter in layer.filters]
        for row, channel in enumerate(layer.reads)
    ]
    height, width = shape = _shape(rows)
    figure, axes = _grid(f"kernels, {layer.title}", rows, shape, KERNEL)
    down, right = _steps(shape)
    places = [i * right + (width - 1) / 2 for i in range(len(layer.filters))]
    axes.set_xticks(places, [filter.label for filter in layer.filters], fontsize=7)
    places = [i * down + (height - 1) / 2 for i in range(len(rows))]
    axes.set_yticks(places, [f"reads {name}" for name in layer.reads.values()], fontsize=7)
    axes.set_xlabel("layer.filter", fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return figure


def draw_outputs(name: str, layer: LayerView) -> Figure:
    """A cell per filter: its output for the image of that name."""
    cells = [Cell(filter.label, filter.output, filter.note) for filter in layer.filters]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    figure, axes = _grid(f"output for {name}, {layer.title}", rows, _shape(rows), OUTPUT)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("layer.filter", fontsize=7)
    return figure


def draw_comparison(title: str, image: Floats, target: Floats | None, output: Floats) -> Figure:
    """Input, target, output (gray, 0..1) and the signed difference of the last two, side by side.

    Without a target, or with one of another size, there is no difference. Output beyond 1 counts as 1,
    as in the picture that it stands for.
    """
    output = np.clip(output, 0.0, 1.0)
    pictures = {"input": image} | ({} if target is None else {"target": target}) | {"output": output}
    compared = target is not None and target.shape == output.shape
    count = len(pictures) + compared
    height = PICTURE * image.shape[0] / image.shape[1]
    figure = Figure((PICTURE * count + compared * 0.6, min(height, LARGEST) + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=9)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (name, picture) in zip(panels, pictures.items(), strict=False):
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_title(name, fontsize=8)
    if target is not None and compared:
        difference = output - target
        error = np.abs(difference).mean(dtype=np.float64)
        _signed(panels[-1], difference, limit([difference]))
        panels[-1].set_title(f"output - target, mean absolute {error:.3g}", fontsize=8)
    for axes in panels:
        axes.set_axis_off()
    return figure


def limit(arrays: Iterable[Floats | None]) -> float:
    """Return the largest absolute value, the end of a scale on both sides; 1 if all are zeros or None."""
    return max((float(np.abs(array).max()) for array in arrays if array is not None), default=0.0) or 1.0


def mosaic(
    rows: Sequence[Sequence[Cell]], shape: tuple[int, int]
) -> tuple[Floats, list[tuple[Cell, int, int]]]:
    """All cells in one array, NaN between them and where one was removed; and each with its top and left."""
    down, right = _steps(shape)
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (down * (len(rows) - 1) + shape[0], right * (columns - 1) + shape[1]), np.nan, np.float32
    )
    places = []
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            top, left = i * down, j * right
            places.append((cell, top, left))
            if cell.values is not None:
                canvas[top : top + shape[0], left : left + shape[1]] = cell.values
    return canvas, places


def _shape(rows: Sequence[Sequence[Cell]]) -> tuple[int, int]:
    """Height and width of the cells; those of a small square where all are removed."""
    shapes = (cell.values.shape for row in rows for cell in row if cell.values is not None)
    height, width = next(shapes, (5, 5))
    return height, width


def _grid(
    title: str, rows: Sequence[Sequence[Cell]], shape: tuple[int, int], inches: float
) -> tuple[Figure, Axes]:
    canvas, places = mosaic(rows, shape)
    width = min(inches * canvas.shape[1] / shape[1], LARGEST)
    height = min(width * canvas.shape[0] / canvas.shape[1], LARGEST)
    figure = Figure((max(width, 3.0) + 1.6, height + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots()
    _signed(axes, canvas, limit(cell.values for cell, _, _ in places))
    for spine in axes.spines.values():
        spine.set_visible(False)
    for cell, top, left in places:
        if cell.label:
            axes.text(left - 0.5, top - 0.5 - 0.02 * shape[0], cell.label, fontsize=7, va="bottom")
        if cell.values is None:
            _cross(axes, top, left, shape, cell.note)
    return figure, axes


def _steps(shape: tuple[int, int]) -> tuple[int, int]:
    """Pixels from one cell to the next: room for a label between them."""
    return shape[0] + max(1, round(0.12 * shape[0])), shape[1] + max(1, round(0.06 * shape[1]))


def _signed(axes: Axes, values: Floats, end: float) -> None:
    image = axes.imshow(values, cmap=SIGNED, vmin=-end, vmax=end)
    legend = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-end, 0.0, end], format="%.3g")
    legend.ax.tick_params(labelsize=7)


def _cross(axes: Axes, top: int, left: int, shape: tuple[int, int], note: str) -> None:
    """Two diagonals and a frame where a removed filter was."""
    x0, y0, x1, y1 = left - 0.5, top - 0.5, left + shape[1] - 0.5, top + shape[0] - 0.5
    axes.plot([x0, x1, x1, x0, x0, x1, x0, x1], [y0, y0, y1, y1, y0, y1, y1, y0], color="gray", linewidth=1)
    if note:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        axes.text(*middle, note, fontsize=6, ha="center", va="center", bbox=box)
