"""Kernels and outputs of layers as pictures (thesis 3.1): arrays in, figures out.

Negative values are red, positive ones green, and the brighter the larger: black is zero. All cells of a
figure share one scale, which its legend shows. Removed filters are crossed out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib.style
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfscale.inference.remains import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = [(1, 0, 0), (0, 0, 0), (0, 1, 0)]
SIGNED = LinearSegmentedColormap.from_list("signed", COLOURS, N=511).with_extremes(bad="white")
COLUMNS = 5  # outputs side by side
DPI = 100
KERNEL, OUTPUT, PICTURE = 0.8, 2.4, 3.2  # inches of a cell's width
LARGEST = 60.0  # inches of a figure, for networks of hundreds of filters


def png(draw: Callable[[], Figure]) -> bytes:
    """A figure as a file, with the same bytes each time, whatever a user's own style."""
    written = io.BytesIO()
    with matplotlib.style.context("default"):
        draw().savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def draw_kernels(title: str, filters: Sequence[Cell], inputs: Sequence[str]) -> Figure:
    """A column per filter, a row per input that it reads: kernels of shape (height, width, inputs)."""
    shape = next((cell.values.shape for cell in filters if cell.values is not None), (5, 5, len(inputs)))
    rows = [
        [
            Cell("", None if cell.values is None else cell.values[..., row], cell.note if row == 0 else "")
            for cell in filters
        ]
        for row in range(shape[2])
    ]
    figure, axes = _grid(title, rows, (shape[0], shape[1]), KERNEL)
    step = _steps((shape[0], shape[1]))
    axes.set_xticks([i * step[1] + (shape[1] - 1) / 2 for i in range(len(filters))])
    axes.set_xticklabels([cell.label for cell in filters], fontsize=7)
    axes.set_yticks([i * step[0] + (shape[0] - 1) / 2 for i in range(shape[2])])
    axes.set_yticklabels([f"reads {name}" for name in inputs], fontsize=7)
    axes.set_xlabel("layer.filter", fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return figure


def draw_outputs(title: str, filters: Sequence[Cell]) -> Figure:
    """A cell per filter: what it puts out for an image, (height, width)."""
    rows = [list(filters[start : start + COLUMNS]) for start in range(0, len(filters), COLUMNS)]
    shape = next((cell.values.shape for cell in filters if cell.values is not None), (5, 5))
    figure, axes = _grid(title, rows, (shape[0], shape[1]), OUTPUT)
    axes.set_xlabel("layer.filter", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def draw_comparison(
    title: str,
    image: NDArray[np.float32],
    target: NDArray[np.float32] | None,
    output: NDArray[np.float32],
) -> Figure:
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
        _signed(panels[-1], difference, _limit([difference]))
        panels[-1].set_title(f"output - target, mean absolute {error:.3g}", fontsize=8)
    for axes in panels:
        axes.set_axis_off()
    return figure


def mosaic(
    rows: Sequence[Sequence[Cell]], shape: tuple[int, int]
) -> tuple[NDArray[np.float32], list[tuple[Cell, int, int]]]:
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


def _grid(
    title: str, rows: Sequence[Sequence[Cell]], shape: tuple[int, int], inches: float
) -> tuple[Figure, Axes]:
    canvas, places = mosaic(rows, shape)
    width = min(inches * canvas.shape[1] / shape[1], LARGEST)
    height = min(width * canvas.shape[0] / canvas.shape[1], LARGEST)
    figure = Figure((max(width, 3.0) + 1.6, height + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots()
    _signed(axes, canvas, _limit([cell.values for cell, _, _ in places]))
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


def _limit(arrays: Sequence[NDArray[np.float32] | None]) -> float:
    """The largest absolute value: the end of the scale on both sides; 1 if there is nothing but zeros."""
    return max((float(np.abs(array).max()) for array in arrays if array is not None), default=0.0) or 1.0


def _signed(axes: Axes, values: NDArray[np.float32], limit: float) -> None:
    image = axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)
    legend = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-limit, 0.0, limit], format="%.3g")
    legend.ax.tick_params(labelsize=7)


def _cross(axes: Axes, top: int, left: int, shape: tuple[int, int], note: str) -> None:
    """Two diagonals and a frame where a removed filter was."""
    low, high = (left - 0.5, top - 0.5), (left + shape[1] - 0.5, top + shape[0] - 0.5)
    xs = [low[0], high[0], high[0], low[0], low[0], high[0], low[0], high[0]]
    ys = [low[1], low[1], high[1], high[1], low[1], high[1], high[1], low[1]]
    axes.plot(xs, ys, color="gray", linewidth=1)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    if note:
        middle = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
        axes.text(*middle, note, fontsize=6, ha="center", va="center", bbox=box)
