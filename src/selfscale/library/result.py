"""What a minimization of a user's own model found: its decisions, networks by size, and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import keras

from selfscale import files
from selfscale.errors import counted
from selfscale.reporting.tables import Table, as_markdown

TEMPLATE = "minimized.html"
LONG, LAST, BELOW = "long session", "last session", "below the tolerance"


@dataclass(frozen=True)
class Size:
    """Multiply-accumulates of one example, parameters, and the cost that was asked for."""

    macs: int
    parameters: int
    cost: float

    def relative(self, other: Size) -> str:
        return f"{self.cost / other.cost:.1%}" if other.cost else "-"


@dataclass(frozen=True)
class ChannelDecision:
    """What was tried, whether it was accepted, and what is left after it.

    Attributes:
        number: From 1 on.
        round: When all proposals have been tried, a next round begins.
        target: What the proposal took its share from; `LONG`, `LAST`, or `BELOW` if none was proposed.
        share: Of the target.
        started_from: The decision whose network was trained, 0: the initial one.
        tried: What it was, in words.
        channels: How many channels it took from each group.
        branches: Residual branches that it took.
        outcome: "accepted"; "promising": it comes back if a long session is due; "for the frontier only",
            beyond the tolerance; or "reverted".
        reason: Why, in words.
        score: Of the metric that decides, on the validation examples after the session.
        relative_loss: How much worse than the initial network, relative; negative is better.
        bound: What was held against the tolerance.
        size: Of the network after the decision.
        widths: Channels that it has of each group, by the group's name.
        steps: Training steps.
        seconds: Of the session, with its evaluations.
    """

    number: int
    round: int
    target: str
    share: float
    started_from: int
    tried: str
    channels: dict[str, int]
    branches: tuple[str, ...]
    outcome: str
    reason: str
    score: float
    relative_loss: float
    bound: float
    size: Size
    widths: dict[str, int]
    steps: int
    seconds: float

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChannelDecision:
        return cls(**{**values, "branches": tuple(values["branches"]), "size": Size(**values["size"])})

    @property
    def accepted(self) -> bool:
        return self.outcome == "accepted"

    @property
    def gone_on(self) -> bool:
        """Whether its network is the one that was gone on from."""
        return self.accepted or (self.target == BELOW and self.outcome != "reverted")

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class FrontierPoint:
    """A network on the way: of `decision` (0: the initial network), its size and validation score.

    `model` is the plain Keras model, not compiled; `within` says whether it is within the tolerance;
    `widths` are the channels that it has of each group, by the group's name.
    """

    decision: int
    size: Size
    score: float
    within: bool
    widths: dict[str, int]
    model: keras.Model
    path: Path | None = None

    @property
    def cost(self) -> float:
        return self.size.cost


@dataclass(frozen=True)
class MinimizationResult:
    """What `selfscale.minimize` returns.

    Attributes:
        model: The smallest network within the tolerance: a plain Keras model, compiled as the given one.
        frontier: Networks that no other beats in both cost and validation score, the largest first.
        decisions: All that was tried, in order.
        metric: The metric that decided, and whether higher or lower is better, in words.
        unjudged: Outputs that it does not look at.
    """

    model: keras.Model
    frontier: Sequence[FrontierPoint]
    decisions: Sequence[ChannelDecision]
    metric: str
    cost: str
    tolerance: float
    initial: FrontierPoint
    final: FrontierPoint
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.summary()

    def report(self, path: str | Path | None = None) -> str:
        """Return a report as Markdown; also write it to `path`, as a page if that ends in `.html`."""
        text = "\n".join([self.summary(), "", *(f"{t.caption}:\n\n{as_markdown(t)}" for t in self.tables())])
        if path is not None:
            page = self._page() if Path(path).suffix == ".html" else text
            files.write_text(Path(path), page)
        return text

    def summary(self) -> str:
        """Return in some sentences what is left, and by what it was decided."""
        first, last = self.initial, self.final
        accepted = sum(decision.accepted for decision in self.decisions)
        nothing = " Nothing was tried: time was over, or nothing saves one percent of the cost."
        notes = "" if self.decisions else nothing
        if self.unjudged:
            notes += f" The metric does not look at {' and '.join(self.unjudged)}: evaluate that yourself."
        return (
            f"{self.cost} {first.cost:,.6g} -> {last.cost:,.6g} ({last.size.relative(first.size)}), "
            f"parameters {first.size.parameters:,} -> {last.size.parameters:,}, "
            f"validation {self.metric}: {first.score:.4f} -> {last.score:.4f}. "
            f"{counted(len(self.decisions), 'decision')}, {accepted} accepted, "
            f"{counted(sum(decision.steps for decision in self.decisions), 'training step')}; "
            f"tolerance {self.tolerance:.3g}, relative to the initial score.{notes}"
        )

    def tables(self) -> list[Table]:
        rows = [
            (
                str(point.decision),
                f"{point.cost:,.6g}",
                point.size.relative(self.initial.size),
                f"{point.size.parameters:,}",
                f"{point.score:.4f}",
                "yes" if point.within else "no",
            )
            for point in self.frontier
        ]
        header = ("after decision", self.cost, "of the initial", "parameters", "score", "within tolerance")
        tried = [
            (
                str(each.number),
                each.tried,
                each.outcome,
                each.reason,
                f"{each.score:.4f}",
                f"{each.size.cost:,.6g}",
                str(each.steps),
            )
            for each in self.decisions
        ]
        columns = ("decision", "tried", "outcome", "reason", "score", self.cost, "steps")
        return [Table("Networks by size", header, rows), Table("Decisions", columns, tried)]

    def _page(self) -> str:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("selfscale.reporting"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template(TEMPLATE).render(summary=self.summary(), tables=self.tables())


def pareto(points: Sequence[FrontierPoint], higher: bool) -> list[FrontierPoint]:
    """Return the points that no other beats in both cost and score, the largest first."""
    best: list[FrontierPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.score if higher else point.score)):
        if not best or (point.score > best[-1].score if higher else point.score < best[-1].score):
            best.append(point)
    return best[::-1]
