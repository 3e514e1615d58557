"""Draws the layers of a network as one small picture: arrays in, PNG out.

Made for each network that a minimization keeps, so it has to be quick and small: 256 colours, without
Matplotlib. Negative values are red, positive ones green, the brighter the larger, on one scale for a
layer's outputs and one for its kernels, which its title tells. Removed filters keep their places, crossed
out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # numbers in the palette

# Pixels of a filter's output, of a kernel at most, between two of them, and of a line of text.
THUMB, KERNEL, GAP, LINE = 80, 15, 6, 13
COLUMNS = 8  # filters side by side
MOST, MOST_KERNELS = 40, 25  # filters of a layer, kernels of a filter; more are left out
# The palette: signed values around ZERO, then gray ones, then the rest.
ZERO, GRAYS = 90, 64
BLACK, PAPER, INK, FAINT = 2 * ZERO + 1, 253, 254, 255
FONT = ImageFont.load_default_imagefont()  # of fixed pixels: it looks the same on every machine


class Filter(NamedTuple):
    """A filter: its output (THUMB, THUMB), and its kernels by the place of what they read.

    A removed one has no output, and `note` says how it went.
    """

    label: str
    output: Floats | None
    note: str
    kernels: Mapping[int, Floats]


class Row(NamedTuple):
    """A layer's filters; `slots` is how many kernels each of them may have."""

    title: str
    filters: Sequence[Filter]
    slots: int


def png(title: str, image: Floats, target: Floats, layers: Sequence[Row]) -> bytes:
    """A network on an image (gray, 0..1), below it what is wanted of it; the last layer is the output."""
    output = layers[-1].filters[0].output
    assert output is not None  # of the output layer nothing is removed
    image, target, output = compacted(image), compacted(target), np.clip(output, 0, 1)
    error = output - target
    bounds = limit([error])
    top = [
        thumb("input", gray(image)),
        thumb("target", gray(target)),
        thumb("output", gray(output)),
        thumb(f"error \xb1{bounds:.2g}", signed(error, bounds)),
    ]
    parts = [heading(title), beside(top)]
    for layer in layers:
        parts += drawn(layer)
    width = max(part.shape[1] for part in parts)
    sheet = np.vstack([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=PAPER) for p in parts])
    picture = Image.fromarray(np.pad(sheet, GAP, constant_values=PAPER)).convert("P")
    picture.putpalette(PALETTE)
    written = io.BytesIO()
    picture.save(written, "png")
    return written.getvalue()


def drawn(layer: Row) -> Iterator[Pixels]:
    """A layer's title and filters, in lines; a filter has the same place whatever else is removed."""
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
        kernels = {place: signed(kernel, strongest) for place, kernel in filter.kernels.items()}
        cells.append(np.vstack([thumb(filter.label, pixels, filter.note), tiles(kernels, layer.slots)]))
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


def compacted(values: Floats) -> Floats:
    """(THUMB, THUMB), each pixel the mean of what it stands for."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))


def limit(arrays: Iterable[Floats | None]) -> float:
    """The largest absolute value: the end of the scale on both sides; 1 if there is nothing but zeros."""
    return max((float(np.abs(array).max()) for array in arrays if array is not None), default=0.0) or 1.0


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
