"""The comparison as one page that needs nothing else: it opens from a file, without a network or scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from selfscale import files
from selfscale.paths import Job, pictures_folder
from selfscale.reporting import pareto as curve
from selfscale.reporting import tables, wording
from selfscale.settings import Registry

TEMPLATE = "report.html"
# What PNG files say of their size: width and height, four bytes each.
SIZE = slice(16, 24)
FIGURES = {
    "size": "Test score against size: every minimization, the initial network and the baseline",
    "curve": "Test score against size: the best networks of each size that were kept on the way",
}
RULES = {
    "smallest": "the fewest multiply-accumulates whose test score is within {tolerance:.0%} of the initial "
    "network's, or else the best test score",
    "score": "the best test score",
}


class Picture(NamedTuple):
    """An image inside the page; width and height in pixels, so that nothing moves while it loads."""

    source: str
    alt: str
    width: int
    height: int


class Network(NamedTuple):
    """One of the networks on the way to the smallest, in words and as a picture."""

    name: str
    words: str
    picture: Picture


class Table(NamedTuple):
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(
    comparison: Mapping[str, Any],
    seeds: int,
    figures: Mapping[str, Mapping[str, bytes]],
    chosen: Mapping[str, Job],
    rule: Registry,
) -> str:
    """All of `index.html`.

    `figures` are by task and kind, `chosen` is for each task the minimization whose networks are shown.

    Raises:
        UserError: its pictures or decisions are missing.
    """
    tasks = []
    for task, summary in comparison["summary"].items():
        job = chosen[task]
        result = comparison["results"][job.name]
        tasks.append(
            {
                "name": task,
                "figures": [
                    (FIGURES[kind], inside(content, f"{task}: {FIGURES[kind]}"))
                    for kind, content in figures[task].items()
                ],
                "tables": [
                    (tables.interval_note(seeds), summary_table(task, summary)),
                    (tables.paired_note(seeds), paired_table(task, comparison["paired"][task])),
                ],
                "strategy": job.strategy,
                "seed": job.seed,
                "networks": networks(job, result),
                "decisions": decisions(job),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("selfscale.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = code
    return environment.get_template(TEMPLATE).render(
        reading=tables.READING,
        results=result_table(comparison),
        tasks=tasks,
        rule=RULES[rule.rule].format(tolerance=rule.tolerance),
    )


def result_table(comparison: Mapping[str, Any]) -> Table:
    return Table("Every minimization, initial → final", tables.RESULT_HEADER, tables.rows(comparison))


def summary_table(task: str, summary: Mapping[str, Any]) -> Table:
    rows = [tables.summary_row(name, found) for name, found in summary.items()]
    return Table(f"{task}: the strategies", tables.SUMMARY_HEADER, rows)


def paired_table(task: str, paired: Sequence[Mapping[str, Any]]) -> Table:
    rows = [tables.paired_row(found) for found in paired]
    return Table(f"{task}: the strategies against each other and the baseline", tables.PAIRED_HEADER, rows)


def networks(job: Job, result: Mapping[str, Any]) -> list[Network]:
    """The initial network and all that were kept, in order."""
    found = []
    kept = curve.on_the_way(result)
    for number, network in enumerate(kept):
        decision = network["decision"]
        last = " (final)" if number and number == len(kept) - 1 else ""
        name = f"After decision {decision}{last}" if decision else "Initial network"
        filters = wording.listed(network["filters_kept"])
        words = (
            f"filters {filters}; {network['parameters']} parameters; "
            f"{network['macs_per_pixel']:g} MACs/pixel; "
            f"validation {result['loss']} {network['validation']:.4g}"
        )
        alt = f"{job.task}, {name}: kernels and outputs of the filters {filters}, removed ones crossed out"
        found.append(Network(name, words, inside(read_picture(job, decision), alt)))
    return found


def decisions(job: Job) -> list[wording.Decision]:
    return [
        wording.decision(record) for record in files.read_json(job.output / "decisions.json", job.command)
    ]


def read_picture(job: Job, decision: int) -> bytes:
    """A network's picture on the first of the images; UserError names the stage to run if it is missing."""
    path = pictures_folder(job.output, decision) / "1.png"
    return files.read_bytes(path, job.command)


def inside(png: bytes, alt: str) -> Picture:
    width, height = (int.from_bytes(part) for part in (png[SIZE][:4], png[SIZE][4:]))
    return Picture(f"data:image/png;base64,{base64.b64encode(png).decode()}", alt, width, height)


def code(text: str) -> markupsafe.Markup:
    """Text with inline code between backticks, as in Markdown."""
    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))
