from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
from PIL import Image

from selfscale.inference.drawing import (
    COLUMNS,
    MOST,
    SIGNED,
    Cell,
    draw_comparison,
    draw_kernels,
    draw_network,
    draw_outputs,
    limit,
    mosaic,
    png,
)
from selfscale.inference.layer_views import FilterView, LayerView

RNG = np.random.default_rng(0)


def drawn(figure, position=0):
    """The array that is shown in one of a figure's axes, and the ends of its scale."""
    (image,) = figure.axes[position].images
    return np.ma.filled(image.get_array(), np.nan), image.get_clim()


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def layer(*outputs):
    """A layer that reads the image; a filter without output is removed."""
    filters = [
        FilterView(f"0.{i}", {}, output, "removed" if output is None else "")
        for i, output in enumerate(outputs)
    ]
    return LayerView(0, "title", filters, {0: "image"})


def test_negative_is_red_positive_green_and_the_brighter_the_larger_by_default():
    colours = [SIGNED["thesis"](place)[:3] for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    expected = [(1, 0, 0), (0.5, 0, 0), (0, 0, 0), (0, 0.5, 0), (0, 1, 0)]
    np.testing.assert_allclose(colours, expected, atol=0.005)


def test_the_other_palette_tells_signs_apart_without_red_and_green():
    """By Vienot, Brettel and Mollon (1999): what is seen without the long-wave cones."""
    linear = np.array([SIGNED[name](end)[:3] for name in SIGNED for end in (0.0, 1.0)]) ** 2.2
    seen = linear @ np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]).T
    hues = rgb_to_hsv(np.clip(seen, 0, 1))[:, 0].reshape(len(SIGNED), 2)
    same, other = np.abs(hues[:, 0] - hues[:, 1])
    assert same < 0.02  # red and green are shades of one yellow
    assert other > 0.3  # orange and blue are not


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
    (legend,) = (axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    ends = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in legend.get_yticklabels()]
    assert ends == [f"{-largest:.3g}", "0", f"{largest:.3g}"]
    for row in range(4):
        for column, filter in ((0, 0), (2, 1)):
            part = array[row * 4 : row * 4 + 3, column * 6 : column * 6 + 5]
            np.testing.assert_array_equal(part, kernels[:, :, row, filter])
        assert np.isnan(array[row * 4 : row * 4 + 3, 6:11]).all()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        f"reads {name}" for name in reads.values()
    ]
    assert len(axes.lines) == 4  # a cross for each kernel of the removed filter
    assert [text for text in texts(figure) if text] == ["1.0", "1.1", "decision 7", "1.2"]
    assert figure.get_suptitle() == "kernels, title"


def test_outputs_are_labelled_and_in_rows():
    outputs = RNG.random((7, 20, 30), dtype=np.float32)
    figure = draw_outputs("a.png", layer(*(None if i == 3 else outputs[i] for i in range(7))))
    array, (low, high) = drawn(figure)
    assert -low == high == outputs[[0, 1, 2, 4, 5, 6]].max()
    _, places, _ = mosaic([[Cell(values=values) for values in outputs[:COLUMNS]]] * 2)
    for index, (_, top, left) in enumerate(places[: len(outputs)]):
        if index != 3:
            np.testing.assert_array_equal(array[top : top + 20, left : left + 30], outputs[index])
    assert texts(figure) == ["0.0", "0.1", "0.2", "0.3", "removed", "0.4", "0.5", "0.6"]
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
    error = f"output - target, mean absolute {np.abs(seen - target).mean():.3g}"
    assert titles == ["input", "target", "output", error]
    for position, expected in enumerate((image, target, seen)):
        array, limits = drawn(figure, position)
        np.testing.assert_array_equal(array, expected)
        assert limits == (0, 1)
    array, limits = drawn(figure, 3)
    np.testing.assert_array_equal(array, seen - target)
    assert limits[1] == -limits[0] == np.abs(seen - target).max()
    for wanted, names in ((None, ["input", "output"]), (target[2:-2], ["input", "target", "output"])):
        assert [axes.get_title() for axes in draw_comparison("", image, wanted, image).axes] == names


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_network_in_one_figure_of_bounded_size(known):
    output = np.ones((20, 20), np.float32)
    kernels = {channel: np.ones((3, 3), np.float32) for channel in range(300)}
    filters = [FilterView(f"0.{i}", kernels, output) for i in range(300)]
    layers = [LayerView(number, "layer", filters, {}) for number in (0, 1)]
    figure = draw_network("title", output, output / 2 if known else None, layers)
    width, height = figure.get_size_inches()
    assert width < 7 and height < 40
    found = texts(figure)
    top = ["input", "target, white 0.5", "output", "error ±0.5"] if known else ["input", "output, white 1"]
    assert set(top) < set(found)
    assert f"layer: outputs ±1, kernels ±1, the first {MOST} of 300 filters" in found
    assert found.count(f"0.{MOST - 1}") == 2 and f"0.{MOST}" not in found


def test_a_scale_ends_where_so_large_a_share_of_the_values_lies_within():
    values = np.array([-1.0, 2.0, -3.0, 4.0, 0.0], np.float32)
    assert (limit([values, None]), limit([values], 0.5), limit([None]), limit([0 * values])) == (4, 2, 1, 1)


def test_the_same_arrays_make_the_same_bytes_whatever_the_users_style():
    filters = [FilterView("0.0", {0: RNG.normal(size=(3, 3))}), FilterView("0.1", {}, note="removed")]

    def draw():
        return draw_kernels(LayerView(0, "title", filters, {0: "image"}))

    content = png(draw)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert not image.text
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20}):
        assert png(draw) == content
