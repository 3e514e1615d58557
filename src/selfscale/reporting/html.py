"""The comparison as one page that needs nothing else: it opens from a file, without a network or scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jinja2
import markupsafe

from selfscale import files
from selfscale.paths import Baseline, Job, pictures_folder
from selfscale.reporting import tables
from selfscale.reporting.pareto import networks_of, validation_scores
from selfscale.reporting.statistics import score
from selfscale.settings import Registry

# In PNG files: width and height, four bytes each.
SIZE = slice(16, 24)
RULES = {
    "smallest": "the fewest multiply-accumulates within the tolerance, or else the best score, on validation",
    "score": "the best score on validation",
}


class Champion(NamedTuple):
    """What the page shows of a task: the minimization that the registry's rule chooses.

    `pictures` are PNG files by title, before and after; `milliseconds` a megapixel takes the initial and
    the minimized network, and in `means` those of each strategy and of the baselines, means over the seeds;
    `frontier` is a PNG file of all networks of the task.
    """

    job: Job
    pictures: Mapping[str, bytes]
    milliseconds: tuple[float, float]
    means: Mapping[str, float]
    frontier: bytes


def html_page(
    comparison: Mapping[str, Any],
    seeds: int,
    champions: Mapping[str, Champion],
    rule: Registry,
    origin: str,
) -> str:
    """Return all of `index.html`.

    Args:
        champions: By task.
        origin: Date, commit and data, in words.

    Raises:
        UserError: Pictures or decisions of a champion are missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("selfscale.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = code
    return environment.get_template("report.html").render(
        origin=origin,
        tasks=[task_of(comparison, seeds, found, rule) for found in champions.values()],
        summary=tables.summary_table(
            comparison, {task: (found.milliseconds[0], found.means) for task, found in champions.items()}
        ),
        results=tables.result_table(comparison),
        reading=tables.READING,
        note=tables.interval_note(seeds),
    )


def task_of(comparison: Mapping[str, Any], seeds: int, found: Champion, rule: Registry) -> dict[str, Any]:
    """What the template reads of a task."""
    job = found.job
    result = comparison["results"][job.name]
    decisions = files.read_json(job.output / "decisions.json", job.command)
    baseline = score(comparison["baseline"][Baseline(job.task, job.seed).name], "test")
    initial, minimized = found.milliseconds
    verdict = "within" if rule.within(*validation_scores(result)) else "not within"
    return {
        "name": job.task,
        "answer": f"{result['macs_per_pixel'] / result['macs_per_pixel_initial']:.0%} of the "
        f"multiply-accumulates, error {score(result, 'test'):#.2g} (baseline {baseline:#.2g}), "
        f"{minimized:.3g} ms per megapixel",
        "more": f"{job.strategy}, seed {job.seed}; error: {result['loss']} on the test images; "
        f"initial network: error {score(result, 'test', 'initial'):#.2g}, {initial:.3g} ms; "
        f"{verdict} the tolerance of {rule.tolerance:.0%}; chosen by the registry's rule: {RULES[rule.rule]}",
        "pictures": {title: embedded(png, f"{job.task}: {title}") for title, png in found.pictures.items()},
        "frontier": embedded(found.frontier, f"{job.task}: test score against size of all networks"),
        "tables": tables.task_tables(comparison, job.task, seeds),
        "networks": network_figures(job, result, decisions),
        "decisions": tables.decision_table(decisions),
    }


def network_figures(
    job: Job, result: Mapping[str, Any], decisions: Iterable[Mapping[str, Any]]
) -> list[tuple[str, markupsafe.Markup]]:
    """The initial network and all that were accepted, in words and on the first of the images.

    Other networks on the way have no pictures, and none of a problem's has.

    Raises:
        UserError: A picture is missing; the message names the stage to run.
    """
    found: list[tuple[str, markupsafe.Markup]] = []
    if result.get("problem"):
        return found
    accepted = {0, *(decision["number"] for decision in decisions if decision["accepted"])}
    for network in (network for network in networks_of(result) if network["decision"] in accepted):
        decision = network["decision"]
        words = (
            f"{f'After decision {decision}' if decision else 'Initial'}: "
            f"filters {tables.numbers(network['filters_kept'])}; {network['parameters']} parameters; "
            f"{network['macs_per_pixel']:g} MACs/pixel; "
            f"validation {result['loss']} {network['validation']:.4g}"
        )
        picture = files.read_png(pictures_folder(job.output, decision) / "1.png", job.command)
        found.append((words, embedded(picture, f"{words}. Kernels and outputs, removed filters crossed out")))
    return found


def embedded(png: bytes, alt: str) -> markupsafe.Markup:
    """A PNG file inside the page; with its width and height, so that nothing moves while it loads."""
    width, height = (int.from_bytes(part) for part in (png[SIZE][:4], png[SIZE][4:]))
    tag = markupsafe.Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">')
    return tag.format(base64.b64encode(png).decode(), alt, width, height)


def code(text: str) -> markupsafe.Markup:
    """Text with inline code between backticks, as in Markdown."""
    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))
