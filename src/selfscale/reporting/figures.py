"""Figures of the comparison, as PNG files: score against size; equal results make equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from selfscale.inference.drawing import png
from selfscale.reporting.statistics import BASELINE, Result, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from selfscale.reporting.pareto import MeanFronts

MARKERS = "osD^v<>P*"
# The benchmark's two ways of training the same networks.
CURVES = {
    "first_session": ("from scratch, first session", ":"),
    "equal_steps": ("from scratch, {steps} steps", "--"),
}


def size_figure(
    task: str, group: Mapping[str, Sequence[Result]], benchmark: Mapping[str, Any] | None = None
) -> bytes:
    """Draw test score against multiply-accumulates per pixel: a PNG.

    Args:
        group: The task's results by strategy, and its baselines.
        benchmark: The exhaustive benchmark. Its frontiers are drawn as lines, with the widths of the
            networks trained for equal steps.
    """

    def draw(axes: Axes) -> None:
        draw_networks(axes, group)
        axes.set_ylabel(f"test score ({group[BASELINE][0]['loss']}, lower is better)")
        if benchmark:
            draw_frontiers(axes, benchmark)
        axes.set_xlim(left=0)

    return score_figure(f"{task}: every minimization by its size", draw)


def curve_figure(task: str, fronts: MeanFronts, benchmark: Mapping[str, Any] | None = None) -> bytes:
    """Draw test score against size of the best networks on the way, over the seeds, by strategy: a PNG.

    With the 95 % intervals, and the frontiers of the exhaustive `benchmark`.
    """

    def draw(axes: Axes) -> None:
        for position, (name, front) in enumerate(fronts.items()):
            sizes, means = [size for size, _ in front], [found.mean or 0.0 for _, found in front]
            color = f"C{position}"
            axes.step(sizes, means, where="post", marker=".", color=color, label=name)
            half = [found.half_width or 0.0 for _, found in front]
            low, high = ([m + sign * h for m, h in zip(means, half, strict=True)] for sign in (-1, 1))
            axes.fill_between(sizes, low, high, step="post", color=color, alpha=0.15)
        if benchmark:
            draw_frontiers(axes, benchmark)
        axes.set(xscale="log", ylabel="test score of the best on validation (lower is better)")

    return score_figure(f"{task}: the best networks of each size that were accepted on the way", draw)


def score_figure(title: str, draw: Callable[[Axes], None]) -> bytes:
    """Draw scores against multiply-accumulates per pixel: a PNG."""

    def drawn() -> Figure:
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel="multiply-accumulates per pixel", yscale="log")
        draw(axes)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
        return figure

    return png(drawn, dpi=120)


def draw_networks(axes: Axes, group: Mapping[str, Sequence[Result]]) -> None:
    """A point per minimization, initial network and baseline."""
    for position, (name, results) in enumerate(group.items()):
        sizes = [result["macs_per_pixel"] for result in results]
        scores = [score(result, "test") for result in results]
        if name == BASELINE:
            initial = [score(result, "test", "initial") for result in results]
            axes.scatter(sizes, initial, facecolors="none", edgecolors="black", label="initial network")
            axes.scatter(sizes, scores, marker="x", color="black", label=name)
        else:
            marker = MARKERS[position % len(MARKERS)]
            axes.scatter(sizes, scores, marker=marker, color=f"C{position}", alpha=0.7, label=name)


def draw_frontiers(axes: Axes, benchmark: Mapping[str, Any]) -> None:
    """The exhaustive benchmark's best networks of each size, mean test score over its seeds."""
    for name, (label, style) in CURVES.items():
        points = benchmark["frontiers"][name]
        sizes = [point["macs_per_pixel"] for point in points]
        scores = [point["test"] for point in points]
        label = label.format(steps=benchmark["steps"])
        axes.plot(sizes, scores, style, marker=".", color="gray", label=label, zorder=1)
        if name == "equal_steps":
            for point in points:
                widths = "-".join(map(str, point["widths"])) or "0"
                place = (point["macs_per_pixel"], point["test"])
                axes.annotate(
                    widths, place, (0, -10), textcoords="offset points", ha="center", fontsize=7, color="gray"
                )
