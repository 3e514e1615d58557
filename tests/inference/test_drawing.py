from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from selfscale.inference.drawing import (
    SIGNED,
    Cell,
    draw_comparison,
    draw_kernels,
    draw_outputs,
    mosaic,
    png,
)
from selfscale.inference.layer_views import FilterView, LayerView

RNG = np.random.default_rng(0)


def drawn(figure, position=0):
    """The array that is shown in one of a figure's axes, and the ends of its scale."""
    (image,) = figure.axes[position].images
    return np.ma.filled(image.get_array(), np.nan), image.get_clim()


def layer(*outputs):
    """A layer that reads the image; a filter without output is removed."""
    filters = [FilterView(f"0.{i}", {}, output) for i, output in enumerate(outputs)]
    return LayerView(0, "title", filters, {0: "image"})


def legends(figure):
    """The numbers on the legends of a figure."""
    return [
        [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axes.get_yticklabels()]
        for axes in figure.axes
        if axes.get_label() == "<colorbar>"
    ]


@pytest.mark.parametrize(
    ("value", "colour"),
    [(-1, (1, 0, 0)), (-0.5, (0.5, 0, 0)), (0, (0, 0, 0)), (0.5, (0, 0.5, 0)), (1, (0, 1, 0))],
)
def test_red_is_negative_green_positive_and_brightness_the_absolute_value(value, colour):
    np.testing.assert_allclose(SIGNED((value + 1) / 2)[:3], colour, atol=0.005)


def test_every_kernel_is_drawn_once_on_one_scale_with_a_legend():
    kernels = RNG.normal(size=(3, 5, 4, 2)).astype(np.float32)  # height, width, inputs, filters
    reads = {0: "0.0", 1: "0.1", 2: "0.2", 4: "0.4"}
    first, last = (
        dict(zip(reads, np.moveaxis(kernels[..., filter], -1, 0), strict=True)) for filter in (0, 1)
    )
    filters = [FilterView("1.0", first), FilterView("1.1", {}, note="decision 7"), FilterView("1.2", last)]
    figure = draw_kernels(LayerView(1, "title", filters, reads))
    array, limits = drawn(figure)
    largest = np.abs(kernels).max()
    assert limits == (pytest.approx(-largest), pytest.approx(largest))
    assert legends(figure) == [[f"{-largest:.3g}", "0", f"{largest:.3g}"]]
    for row in range(4):
        for column, filter in ((0, 0), (2, 1)):
            part = array[row * 4 : row * 4 + 3, column * 6 : column * 6 + 5]
            np.testing.assert_array_equal(part, kernels[:, :, row, filter])
        assert np.isnan(array[row * 4 : row * 4 + 3, 6:11]).all()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1.0", "1.1", "1.2"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        *("reads 0.0", "reads 0.1", "reads 0.2", "reads 0.4")
    ]
    assert len(axes.lines) == 4  # a cross for each kernel of the removed filter
    assert [text.get_text() for text in axes.texts] == ["decision 7"]
    assert figure.get_suptitle() == "kernels, title"


def test_outputs_are_labelled_and_in_rows_of_five():
    outputs = RNG.random((7, 20, 30), dtype=np.float32)
    figure = draw_outputs("a.png", layer(*(None if i == 3 else outputs[i] for i in range(7))))
    array, (low, high) = drawn(figure)
    assert -low == high == outputs[[0, 1, 2, 4, 5, 6]].max()
    np.testing.assert_array_equal(array[:20, 32:62], outputs[1])
    np.testing.assert_array_equal(array[22:42, 32:62], outputs[6])
    assert [text.get_text() for text in figure.axes[0].texts] == [f"0.{i}" for i in range(7)]
    assert len(figure.axes[0].lines) == 1


def test_a_layer_that_is_all_removed_or_all_zero_has_a_figure():
    for values in (None, np.zeros((6, 7), np.float32)):
        figure = draw_outputs("a.png", layer(values, values))
        assert drawn(figure)[1] == (-1, 1)
        assert len(figure.axes[0].lines) == (2 if values is None else 0)
        assert png(lambda figure=figure: figure)
    assert len(draw_kernels(layer(None)).axes[0].lines) == 1


def test_input_target_output_and_difference_side_by_side():
    image, target = RNG.random((2, 12, 20), dtype=np.float32)
    output = target + RNG.normal(scale=0.5, size=target.shape).astype(np.float32)
    figure = draw_comparison("title", image, target, output)
    titles = [axes.get_title() for axes in figure.axes][:4]
    seen = np.clip(output, 0, 1)
    assert titles[:3] == ["input", "target", "output"]
    assert titles[3] == f"output - target, mean absolute {np.abs(seen - target).mean():.3g}"
    for position, expected in enumerate((image, target, seen)):
        array, limits = drawn(figure, position)
        np.testing.assert_array_equal(array, expected)
        assert limits == (0, 1)
    array, limits = drawn(figure, 3)
    np.testing.assert_array_equal(array, seen - target)
    assert limits[1] == -limits[0] == np.abs(seen - target).max()


def test_without_a_target_there_is_no_difference():
    image = RNG.random((12, 20), dtype=np.float32)
    titles = [axes.get_title() for axes in draw_comparison("title", image, None, image).axes]
    assert titles == ["input", "output"]
    smaller = [axes.get_title() for axes in draw_comparison("title", image, image, image[2:-2, 2:-2]).axes]
    assert smaller == ["input", "target", "output"]


def test_a_mosaic_keeps_a_gap_around_each_cell():
    ones = np.ones((10, 10), np.float32)
    canvas, places = mosaic([[Cell("a", ones), Cell("b", ones)], [Cell("c", ones)]], (10, 10))
    assert canvas.shape == (21, 21)
    assert np.isnan(canvas[10]).all() and np.isnan(canvas[:, 10]).all() and np.isnan(canvas[11:, 11:]).all()
    assert [(cell.label, top, left) for cell, top, left in places] == [
        ("a", 0, 0),
        ("b", 0, 11),
        ("c", 11, 0),
    ]


def test_the_same_arrays_make_the_same_bytes():
    kernels = RNG.normal(size=(3, 3, 1)).astype(np.float32)

    def draw():
        filters = [FilterView("0.0", {0: kernels[..., 0]}), FilterView("0.1", {}, note="removed")]
        return draw_kernels(LayerView(0, "title", filters, {0: "image"}))

    content = png(draw)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert not image.text
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20}):
        assert png(draw) == content
