"""A whole network in one small picture: every filter's kernels, and its output for an image.

Drawn of each network that a minimization accepts, so that one sees it shrink. It has to be quick and small:
256 colours, without Matplotlib (10 ms a picture instead of 600). Negative values are red, positive ones
green, the brighter the larger, on one scale for a layer's outputs and one for its kernels, which its title
tells. Removed filters keep their places, crossed out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from selfscale.inference.drawing import limit
from selfscale.inference.layer_views import REMOVING, FilterView, Floats, LayerView, NetworkView
from selfscale.records import DecisionRecord

Pixels = NDArray[np.uint8]  # numbers in the palette

SIDE = 160  # pixels of the middle of an image, on which the network is shown
EXAMPLES = 3  # images
# Pixels of a filter's output, of a kernel at most, between two of them, and of a line of text.
THUMB, KERNEL, GAP, LINE = 80, 15, 6, 13
COLUMNS = 8  # filters side by side
MOST, MOST_KERNELS = 40, 25  # filters of a layer, kernels of a filter; more are left out
# The palette: signed values around ZERO, then gray ones, then the rest.
ZERO, GRAYS = 90, 64
BLACK, PAPER, INK, FAINT = 2 * ZERO + 1, 253, 254, 255
FONT = ImageFont.load_default_imagefont()  # of fixed pixels: it looks the same on every machine


class Example(NamedTuple):
    """An image and its target: float32 (height, width), values from 0 to 1."""

    image: Floats
    target: Floats


def examples(images: NDArray[np.uint8], targets: NDArray[np.generic]) -> list[Example]:
    """Take the middles of the first images, uint8 (N, H, W, 1), and of their targets (N, H, W, 1)."""
    top, left = (max(0, (length - SIDE) // 2) for length in images.shape[1:3])
    some = (slice(EXAMPLES), slice(top, top + SIDE), slice(left, left + SIDE), 0)
    gray = images[some].astype(np.float32) / np.float32(255)
    return [Example(*pair) for pair in zip(gray, targets[some].astype(np.float32), strict=True)]


def network_pictures(
    model: keras.Model,
    active: Sequence[NDArray[np.bool_]],
    records: Sequence[DecisionRecord],
    shown: Sequence[Example],
) -> list[bytes]:
    """Draw a PNG per example; equal networks make equal bytes, and no random number is drawn.

    Args:
        model: The compact network.
        active: For each hidden layer, which of its filters are left, boolean (filters,).
        records: The decisions so far.
        shown: The images.
    """
    removed_by = {
        filter: record.number
        for record in records
        if record.accepted and record.alteration in REMOVING
        for filter in record.filters
    }
    network = NetworkView(model, [~filters for filters in active], removed_by)
    title = f"after decision {records[-1].number}" if records else "initial network"
    left = ", ".join(str(filters.sum()) for filters in active)
    title = f"{title}: filters {left}; {model.count_params()} parameters"
    return [draw(title, example, list(network.layers(example.image))) for example in shown]


def draw(title: str, example: Example, layers: Sequence[LayerView]) -> bytes:
    """Draw a network on an example; the last layer is its output."""
    layers = [layer._replace(filters=list(map(reduced, layer.filters))) for layer in layers]
    output = layers[-1].filters[0].output
    assert output is not None  # of the output layer nothing is removed
    target, output = shrunk(example.target), np.clip(output, 0, 1)
    error = output - target
    bounds = limit([error])
    top = [
        thumb("input", gray(shrunk(example.image))),
        thumb("target", gray(target)),
        thumb("output", gray(output)),
        thumb(f"error \xb1{bounds:.2g}", signed(error, bounds)),
    ]
    parts, slots = [heading(title), beside(top)], 1
    for layer in layers:
        parts += drawn(layer, slots)
        slots = max(slots, len(layer.filters))
    width = max(part.shape[1] for part in parts)
    sheet = np.vstack([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=PAPER) for p in parts])
    picture = Image.fromarray(np.pad(sheet, GAP, constant_values=PAPER)).convert("P")
    picture.putpalette(PALETTE)
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def drawn(layer: LayerView, slots: int) -> Iterator[Pixels]:
    """A layer's title and filters, in lines; a filter has the same place whatever else is removed.

    `slots` is how many kernels each filter may have.
    """
    brightest = limit(filter.output for filter in layer.filters)
    strongest = limit(kernel for filter in layer.filters for kernel in filter.kernels.values())
    title = layer.title
    if any(filter.output is not None for filter in layer.filters):
        title += f": outputs \xb1{brightest:.2g}, kernels \xb1{strongest:.2g}"
    if len(layer.filters) > MOST:
        title += f", the first {MOST} of {len(layer.filters)} filters"
    yield heading(title)
    cells = []
    for filter in layer.filters[:MOST]:
        pixels = None if filter.output is None else signed(filter.output, brightest)
        kernels = {channel: signed(kernel, strongest) for channel, kernel in filter.kernels.items()}
        cells.append(np.vstack([thumb(filter.label, pixels, filter.note), tiles(kernels, slots)]))
    for start in range(0, len(cells), COLUMNS):
        yield beside(cells[start : start + COLUMNS])


def tiles(kernels: Mapping[int, Pixels], slots: int) -> Pixels:
    """Kernels in their places, enlarged."""
    step, slots = KERNEL + 1, min(slots, MOST_KERNELS)
    across = THUMB // step
    paper = np.full((-(-slots // across) * step + GAP, THUMB), PAPER, np.uint8)
    for place, kernel in kernels.items():
        if place < slots:
            scale = max(1, KERNEL // max(kernel.shape))
            large = kernel.repeat(scale, axis=0).repeat(scale, axis=1)[:KERNEL, :KERNEL]
            top, left = place // across * step, place % across * step
            paper[top : top + large.shape[0], left : left + large.shape[1]] = large
    return paper


def thumb(label: str, pixels: Pixels | None, note: str = "") -> Pixels:
    """A picture below its label; a cross with the note if there is none."""
    sheet = Image.new("L", (THUMB, LINE + THUMB + 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((0, 1), label, fill=INK, font=FONT)
    if pixels is not None:
        sheet.paste(Image.fromarray(pixels), (0, LINE))
        return np.asarray(sheet)
    low, high = LINE, LINE + THUMB - 1
    draw.rectangle((0, low, THUMB - 1, high), outline=FAINT)
    draw.line((0, low, THUMB - 1, high), fill=FAINT)
    draw.line((0, high, THUMB - 1, low), fill=FAINT)
    left, middle, width = (THUMB - draw.textlength(note, FONT)) // 2, (low + high) // 2, THUMB
    draw.rectangle((left - 2, middle - 7, width - left + 1, middle + 6), fill=PAPER)
    draw.text((left, middle - 6), note, fill=INK, font=FONT)
    return np.asarray(sheet)


def heading(text: str) -> Pixels:
    width = int(FONT.getlength(text)) + 1
    sheet = Image.new("L", (width, LINE + GAP), PAPER)
    ImageDraw.Draw(sheet).text((0, GAP - 1), text, fill=INK, font=FONT)
    return np.asarray(sheet)


def beside(cells: Sequence[Pixels]) -> Pixels:
    gap = np.full((cells[0].shape[0], GAP), PAPER, np.uint8)
    return np.hstack([part for cell in cells for part in (cell, gap)][:-1])


def reduced(filter: FilterView) -> FilterView:
    return filter if filter.output is None else filter._replace(output=shrunk(filter.output))


def shrunk(values: Floats) -> Floats:
    """(THUMB, THUMB), each pixel the mean of what it stands for."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))


def signed(values: Floats, end: float) -> Pixels:
    return np.rint(values / end * ZERO + ZERO).astype(np.uint8)


def gray(values: Floats) -> Pixels:
    return np.rint(np.clip(values, 0, 1) * (GRAYS - 1) + BLACK).astype(np.uint8)


def palette() -> list[int]:
    """Red, green and blue of each of the 256 numbers."""
    colours = np.zeros((256, 3))
    colours[:ZERO, 0] = np.arange(ZERO, 0, -1) / ZERO
    colours[ZERO + 1 : BLACK, 1] = np.arange(1, ZERO + 1) / ZERO
    colours[BLACK : BLACK + GRAYS] = np.linspace(0, 1, GRAYS)[:, None]
    colours[PAPER], colours[FAINT] = 1.0, 0.6
    return list(np.rint(colours * 255).astype(int).ravel())


PALETTE = palette()
