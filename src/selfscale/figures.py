"""The figures of the comparison, as PNG; equal results make equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfscale.statistics import CONTROL, Result, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^v<>P*"
# The benchmark's two ways of training the same networks.
CURVES = {
    "first_session": ("from scratch, first session", ":"),
    "equal_steps": ("from scratch, {steps} steps", "--"),
}


def size_figure(
    task: str, group: Mapping[str, Sequence[Result]], benchmark: Mapping[str, Any] | None = None
) -> bytes:
    """Test score against multiply-accumulates per pixel: a PNG.

    `group` has the task's results by strategy, and its controls. The frontiers of the exhaustive
    `benchmark` are drawn as lines, with the widths of the networks trained for equal steps.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.style.context("default"):  # not a user's own style: the bytes must not vary
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.set(
            title=f"{task}: every minimization by its size",
            xlabel="multiply-accumulates per pixel",
            ylabel=f"test score ({group[CONTROL][0]['loss']}, lower is better)",
            yscale="log",
        )
        draw_networks(axes, group)
        if benchmark:
            draw_frontiers(axes, benchmark)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
        figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()


def draw_networks(axes: Axes, group: Mapping[str, Sequence[Result]]) -> None:
    """A point per minimization, initial network and control."""
    for position, (name, results) in enumerate(group.items()):
        sizes = [result["macs_per_pixel"] for result in results]
        scores = [score(result, "test") for result in results]
        if name == CONTROL:
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
