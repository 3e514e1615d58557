"""Figures of networks, their kernels and outputs (thesis 3.1): the brighter the larger, black is zero."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:  # so that other figures are drawn without TensorFlow
    from matplotlib.axes import Axes

    from selfscale.inference.layer_views import FilterView, LayerView

Floats = NDArray[np.float32]
Palette = Literal["thesis", "colour-blind"]

# Of negative values, zero and positive ones; blue and orange are Okabe and Ito's (2008).
SIGNED: dict[str, Colormap] = {
    name: LinearSegmentedColormap.from_list(name, colours, N=511).with_extremes(bad="none")
    for name, colours in (
        ("thesis", ("red", "black", "lime")),
        ("colour-blind", ("#56b4e9", "black", "#e69f00")),
    )
}
DPI = 100
SMALL = 7  # points of a label
COLUMNS, TILES = 5, 5  # outputs, and kernels of one filter, side by side
MOST, MOST_KERNELS = 40, 25  # filters of a layer, kernels of a filter in the picture of a whole network
KERNEL, OUTPUT, PICTURE, THUMB = 0.8, 2.5, 3.2, 1.2  # inches from one cell to the next
LINE = 0.17  # inches of a line of text
BRIGHT = 0.99  # share of the values within a scale of that picture
LARGEST = 60.0  # inches of a figure, for networks of hundreds of filters


class Cell(NamedTuple):
    """A labelled array of a mosaic; without values it is blank or, if it has a note, crossed out."""

    label: str = ""
    values: Floats | None = None
    note: str | None = None


def png(draw: Callable[[], Figure], dpi: int = DPI) -> bytes:
    """Return a figure as a PNG file, with the same bytes each time, whatever a user's own style."""
    content = io.BytesIO()
    with matplotlib.style.context("default"):
        draw().savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def draw_kernels(layer: LayerView, palette: Palette = "thesis") -> Figure:
    """A column per filter, a row per channel that it reads."""
    rows = [
        [_cell(filter, filter.kernels.get(channel), first=not row) for filter in layer.filters]
        for row, channel in enumerate(layer.reads)
    ]
    figure, axes, step = _sheet(f"kernels, {layer.title}", rows, KERNEL, palette)
    places = [(row + 0.5) * step for row in range(len(rows))]
    axes.set_yticks(places, [f"reads {name}" for name in layer.reads.values()], fontsize=SMALL)
    axes.tick_params(length=0)
    return figure


def draw_outputs(name: str, layer: LayerView, palette: Palette = "thesis") -> Figure:
    """A cell per filter: its output for the image of that name."""
    cells = [_cell(filter, filter.output) for filter in layer.filters]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    return _sheet(f"output for {name}, {layer.title}", rows, OUTPUT, palette)[0]


def draw_images(
    title: str, pictures: Mapping[str, Floats], error: Floats | None = None, palette: Palette = "thesis"
) -> Figure:
    """Gray images by their titles, values 0..1 (H, W), and a signed error, side by side with their scales."""
    height, width = next(iter(pictures.values())).shape
    count = len(pictures) + (error is not None)
    size = (PICTURE * count + 0.6 * (error is not None), min(PICTURE * height / width, LARGEST) + 0.6)
    figure = Figure(size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (name, picture) in zip(panels, pictures.items(), strict=False):
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_title(name, fontsize=9)
    if error is not None:
        end = limit([error])
        panels[-1].imshow(error, cmap=SIGNED[palette], vmin=-end, vmax=end)
        mean = np.abs(error).mean(dtype=np.float64)
        panels[-1].set_title(f"output - target, mean absolute {mean:.3g}", fontsize=9)
        _legend(panels[-1], end)
    for axes in panels:
        axes.set_axis_off()
    return figure


def draw_comparison(
    title: str, image: Floats, target: Floats | None, output: Floats, palette: Palette = "thesis"
) -> Figure:
    """Input, target, output clipped to 0..1, and the difference of the last two if their sizes agree."""
    output = np.clip(output, 0.0, 1.0)
    pictures = {"input": image} | ({} if target is None else {"target": target}) | {"output": output}
    error = None if target is None or target.shape != output.shape else output - target
    return draw_images(title, pictures, error, palette)


def draw_network(
    title: str, image: Floats, target: Floats | None, layers: Sequence[LayerView], palette: Palette = "thesis"
) -> Figure:
    """A whole network on an image: input, target, output, error; then each layer's outputs and kernels.

    A filter has the same place whatever else is removed. Of huge layers the first filters are shown. The
    scales end where 1 % of the values are beyond, to be bright.
    """
    output = layers[-1].filters[0].output
    assert output is not None  # of the output layer nothing is removed
    output, signed = np.clip(output, 0.0, 1.0), SIGNED[palette]
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(0, LINE, title, fontsize=9, weight="bold")
    top = _place(axes, [[Cell("input", image)]], 2.3 * LINE, THUMB)
    white = limit([output if target is None else target])
    row = [Cell(), Cell(f"output, white {white:.2g}", output)]
    if target is not None:
        end = limit([output - target], BRIGHT)
        row[1:] = Cell(f"target, white {white:.2g}", target), Cell("output", output)
        error = [*[Cell()] * 3, Cell(f"error ±{end:.2g}", output - target)]
        _place(axes, [error], 2.3 * LINE, THUMB, signed, end)
    _place(axes, [row], 2.3 * LINE, THUMB, end=white)
    slots = 1
    for layer in layers:
        top = _draw_layer(axes, layer, slots, top, signed)
        slots = max(slots, min(len(layer.filters), MOST_KERNELS))
    width = max(4, min(COLUMNS, max(len(layer.filters) for layer in layers))) * THUMB
    figure.set_size_inches(width + 2 * LINE, top + LINE)
    axes.set(xlim=(-LINE, width + LINE), ylim=(top + LINE, 0), aspect="auto")
    return figure


def limit(arrays: Iterable[Floats | None], share: float = 1.0) -> float:
    """Return the quantile of all absolute values, the end of a scale; 1 if all are zeros or None."""
    values = [np.abs(array).ravel() for array in arrays if array is not None]
    return float(np.quantile(np.concatenate(values), share)) or 1.0 if values else 1.0


def mosaic(rows: Sequence[Sequence[Cell]]) -> tuple[Floats, list[tuple[Cell, int, int]], tuple[int, int]]:
    """All cells in one array, NaN where there is none; each cell with its top and left; their shape."""
    shapes = (cell.values.shape for row in rows for cell in row if cell.values is not None)
    height, width = next(shapes, (5, 5))  # a small square where all are removed
    down, right = _steps((height, width))
    places = [(cell, i * down, j * right) for i, row in enumerate(rows) for j, cell in enumerate(row)]
    shape = (max(top for _, top, _ in places) + height, max(left for *_, left in places) + width)
    canvas = np.full(shape, np.nan, np.float32)
    for cell, top, left in places:
        if cell.values is not None:
            canvas[top : top + height, left : left + width] = cell.values
    return canvas, places, (height, width)


def _steps(shape: tuple[int, int]) -> tuple[int, int]:
    """Pixels from one cell to the next: room for a label between them."""
    return shape[0] + max(1, round(0.14 * shape[0])), shape[1] + max(1, round(0.06 * shape[1]))


def _cell(filter: FilterView, values: Floats | None, *, first: bool = True) -> Cell:
    """A filter's cell; its label and note are in the first of its cells."""
    note = (filter.note if first else "") if filter.note else None
    return Cell(filter.label if first else "", values, note)


def _draw_layer(axes: Axes, layer: LayerView, slots: int, top: float, colours: Colormap) -> float:
    """A layer's title, and its filters in lines: their outputs and, below, up to `slots` kernels of each."""
    shown = layer.filters[:MOST]
    outputs = limit((f.output for f in shown), BRIGHT)
    kernels = limit(k for f in shown for k in f.kernels.values())
    title = layer.title
    if any(filter.output is not None for filter in shown):
        title += f": outputs ±{outputs:.2g}, kernels ±{kernels:.2g}"
    if len(layer.filters) > MOST:
        title += f", the first {MOST} of {len(layer.filters)} filters"
    top += 2 * LINE
    axes.text(0, top, title, fontsize=8, weight="bold")
    for start in range(0, len(shown), COLUMNS):
        line = shown[start : start + COLUMNS]
        top = _place(axes, [[_cell(f, f.output) for f in line]], top + 1.2 * LINE, THUMB, colours, outputs)
        tiles = [
            [Cell("", f.kernels.get(channel)) for f in line for channel in range(first, first + TILES)]
            for first in range(0, slots, TILES)
        ]
        top = _place(axes, tiles, top + 0.04, THUMB / TILES, colours, kernels)
    return top


def _sheet(
    title: str, rows: Sequence[Sequence[Cell]], step: float, palette: Palette
) -> tuple[Figure, Axes, float]:
    """A figure of one mosaic with its legend; and the inches from one row to the next."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    end = limit(cell.values for row in rows for cell in row)
    step = min(step, LARGEST / max(len(rows), *map(len, rows)))
    bottom = _place(axes, rows, 0, step, SIGNED[palette], end)
    figure.set_size_inches(max(axes.get_xlim()[1], 3.0) + 1.6, min(bottom, LARGEST) + 1.0)
    figure.suptitle(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("layer.filter", fontsize=SMALL)
    axes.spines[:].set_visible(False)
    _legend(axes, end)
    return figure, axes, bottom / len(rows)


def _legend(axes: Axes, end: float) -> None:
    legend = axes.figure.colorbar(axes.images[0], ax=axes, shrink=0.8, ticks=[-end, 0, end], format="%.3g")
    legend.ax.tick_params(labelsize=SMALL)


def _place(
    axes: Axes,
    rows: Sequence[Sequence[Cell]],
    top: float,
    step: float,
    colours: Colormap | str = "gray",
    end: float = 1.0,
) -> float:
    """Draw a mosaic below `top`, in inches, `step` from one column to the next; returns its bottom."""
    canvas, places, shape = mosaic(rows)
    inch = step / _steps(shape)[1]
    bottom = top + canvas.shape[0] * inch
    area, low = (0, canvas.shape[1] * inch, bottom, top), 0.0 if colours == "gray" else -end
    axes.imshow(canvas, cmap=colours, vmin=low, vmax=end, extent=area)
    for cell, down, right in places:
        x0, y0 = right * inch, top + down * inch
        if cell.label:
            axes.text(x0, y0 - 0.03, cell.label, fontsize=SMALL, va="bottom")
        if cell.values is None and cell.note is not None:
            x1, y1 = x0 + shape[1] * inch, y0 + shape[0] * inch
            axes.plot([x0, x1, x1, x0, x0, x1, x0, x1], [y0, y0, y1, y1, y0, y1, y1, y0], "gray", linewidth=1)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            middle = (x0 + x1) / 2, (y0 + y1) / 2
            axes.text(*middle, cell.note, fontsize=SMALL - 1, ha="center", va="center", bbox=box)
    return bottom
