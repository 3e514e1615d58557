from __future__ import annotations

import io

import matplotlib
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from comparisons import baseline, result
from selfscale.reporting.figures import (
    draw_baselines,
    draw_benchmark,
    draw_front,
    draw_networks,
    frontier_figure,
)
from selfscale.reporting.statistics import BASELINE, Estimate

GROUP = {
    "random": [result("sobel", "random", seed, 150 + 25 * seed, 0.004) for seed in range(3)],
    "cosine": [result("sobel", "cosine", seed, 200, 0.005) for seed in range(3)],
    BASELINE: [baseline("sobel", seed) for seed in range(3)],
}
POINTS = [
    {"widths": [], "macs_per_pixel": 25.0, "test": 0.05},
    {"widths": [3], "macs_per_pixel": 150.0, "test": 0.004},
]
BENCHMARK = {"steps": 9000, "frontiers": {"first_session": POINTS[1:], "equal_steps": POINTS}}


FRONTS = {
    name: [(size, Estimate(0.004, half, 3)) for size, half in ((150.0, None), (200.0, 0.001))]
    for name in ("random", "cosine")
}


def test_a_figure_is_a_png_with_the_same_bytes_each_time():
    arguments = ("sobel", GROUP, FRONTS, GROUP["random"][0], 0.1)
    content = frontier_figure(*arguments, BENCHMARK)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert not image.text  # neither a date nor a version
        assert len(image.convert("RGB").getcolors(2**24)) > 10
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20}):  # a user's own style
        assert frontier_figure(*arguments, BENCHMARK) == content
    assert frontier_figure(*arguments) != content


def test_every_network_and_both_frontiers_are_drawn():
    axes = Figure().subplots()
    for position, name in enumerate(FRONTS):
        draw_networks(axes, name, GROUP[name], position)
        draw_front(axes, FRONTS[name], "black")
    draw_baselines(axes, GROUP[BASELINE], 0.1)
    draw_benchmark(axes, BENCHMARK)
    points = [
        (drawn.get_label(), drawn.get_offsets().tolist())
        for drawn in axes.collections
        if isinstance(drawn, PathCollection)
    ]
    on_the_way = [[(725, 0.0046), (150 + 25 * seed, 0.004)] for seed in range(3)]
    assert points[0][1] == [list(point) for points in on_the_way for point in points]
    assert {label: drawn for label, drawn in points if not label.startswith("_")} == {
        "random": [[150, 0.004], [175, 0.004], [200, 0.004]],
        "cosine": [[200, 0.005]] * 3,
        "initial network": [[875, 0.005]] * 3,
        BASELINE: [[875, 0.0045]] * 3,
    }
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert {label: line for label, line in lines.items() if not label.startswith("_")} == {
        "tolerance, 10%": [[0, pytest.approx(0.0055)], [1, pytest.approx(0.0055)]],
        "from scratch, first session": [[150, 0.004]],
        "from scratch, 9000 steps": [[25, 0.05], [150, 0.004]],
    }
    assert [text.get_text() for text in axes.texts] == ["0", "3"]
