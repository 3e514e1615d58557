"""The frontier, as a PNG file: test score against size of every network; equal results make equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from selfscale.inference.drawing import png
from selfscale.reporting.statistics import BASELINE, Estimate, Result, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from selfscale.reporting.pareto import MeanFronts

MARKERS = "osD^v<>P*"
# Okabe and Ito (2008), told apart by colour-blind people; black is for what was not minimized.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
# The benchmark's two ways of training the same networks.
CURVES = {
    "first_session": ("from scratch, first session", ":"),
    "equal_steps": ("from scratch, {steps} steps", "--"),
}


def frontier_figure(
    task: str,
    group: Mapping[str, Sequence[Result]],
    fronts: MeanFronts,
    champion: Result,
    tolerance: float,
    benchmark: Mapping[str, Any] | None = None,
) -> bytes:
    """Draw test score against multiply-accumulates per pixel of all networks of a task: a PNG.

    Args:
        group: Results by strategy, and baselines. Small points are the networks in their `kept` lists,
            large ones the final networks.
        fronts: By strategy the mean over the seeds of the best network of each size, with 95 % intervals.
        champion: The result to ring.
        tolerance: Relative to the initial network's mean score; drawn as a line.
        benchmark: The exhaustive benchmark. Its frontiers are drawn as lines, with the widths of the
            networks trained for equal steps.
    """
    return png(partial(_draw, task, group, fronts, champion, tolerance, benchmark), dpi=150)


def _draw(
    task: str,
    group: Mapping[str, Sequence[Result]],
    fronts: MeanFronts,
    champion: Result,
    tolerance: float,
    benchmark: Mapping[str, Any] | None,
) -> Figure:
    figure = Figure(figsize=(5.6, 4.3), layout="constrained")
    axes = figure.subplots()
    for position, (name, front) in enumerate(fronts.items()):
        draw_front(axes, front, COLOURS[position % len(COLOURS)])
        draw_networks(axes, name, group[name], position)
    place = champion["macs_per_pixel"], score(champion, "test")
    axes.scatter(*place, s=170, facecolors="none", edgecolors="black", label="champion")
    draw_baselines(axes, group[BASELINE], tolerance)
    if benchmark:
        draw_benchmark(axes, benchmark)
    axes.set(title=f"{task}: score against size", xscale="log", yscale="log")
    axes.set_xlabel("multiply-accumulates per pixel")
    axes.set_ylabel(f"test {group[BASELINE][0]['loss']} (lower is better)")
    for axis in (axes.xaxis, axes.yaxis):  # plain numbers: the range is seldom a power of ten
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure


def draw_front(axes: Axes, front: Sequence[tuple[float, Estimate]], colour: str) -> None:
    """A staircase, with a band where there is an interval."""
    sizes, means = [size for size, _ in front], np.array([found.mean for _, found in front])
    half = np.array([found.half_width or 0.0 for _, found in front])
    axes.step(sizes, means, where="post", color=colour, linewidth=1)
    axes.fill_between(sizes, means - half, means + half, step="post", color=colour, alpha=0.15)


def draw_networks(axes: Axes, name: str, results: Sequence[Result], position: int) -> None:
    """A point per network on the way, and a large one per minimization."""
    look: dict[str, Any] = {"marker": MARKERS[position % len(MARKERS)]}
    look["color"] = COLOURS[position % len(COLOURS)]
    points = [(point["macs_per_pixel"], point["test"]) for found in results for point in found["kept"]]
    axes.scatter([size for size, _ in points], [test for _, test in points], s=12, alpha=0.5, **look)
    sizes, scores = (
        [found["macs_per_pixel"] for found in results],
        [score(found, "test") for found in results],
    )
    axes.scatter(sizes, scores, s=45, edgecolors="black", label=name, **look)


def draw_baselines(axes: Axes, results: Sequence[Result], tolerance: float) -> None:
    """What the minimized networks are held against."""
    sizes, initial = [found["macs_per_pixel"] for found in results], "initial"
    scores = [score(found, "test", initial) for found in results]
    axes.scatter(sizes, scores, facecolors="none", edgecolors="black", label="initial network")
    axes.scatter(
        sizes, [score(found, "test") for found in results], marker="x", color="black", label=BASELINE
    )
    limit = (1 + tolerance) * fmean(scores)
    axes.axhline(limit, color="black", linewidth=0.8, linestyle="-.", label=f"tolerance, {tolerance:.0%}")


def draw_benchmark(axes: Axes, benchmark: Mapping[str, Any]) -> None:
    """The exhaustive benchmark's best networks of each size, mean test score over its seeds."""
    for name, (label, style) in CURVES.items():
        points = [(point["macs_per_pixel"], point["test"]) for point in benchmark["frontiers"][name]]
        label = label.format(steps=benchmark["steps"])
        axes.plot(*zip(*points, strict=True), style, marker=".", color="gray", label=label, zorder=1)
    for point in benchmark["frontiers"]["equal_steps"]:
        widths = "-".join(map(str, point["widths"])) or "0"
        place = point["macs_per_pixel"], point["test"]
        axes.annotate(
            widths, place, (0, -10), textcoords="offset points", fontsize=7, color="gray", ha="center"
        )
