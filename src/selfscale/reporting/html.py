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
from selfscale.records import INSERT_LAYER, MERGE, REMOVE_LAYER, TRAIN_ON, WIDEN
from selfscale.reporting import tables
from selfscale.reporting.pareto import accepted_networks
from selfscale.settings import Registry

TEMPLATE = "report.html"
# In PNG files: width and height, four bytes each.
SIZE = slice(16, 24)
FIGURES = {
    "size": "Test score against size: every minimization, the initial network and the baseline",
    "curve": "Test score against size: the best networks of each size that were accepted on the way",
}
RULES = {
    "smallest": "the fewest multiply-accumulates whose test score is within {tolerance:.0%} of the initial "
    "network's, or else the best test score",
    "score": "the best test score",
}
# Alterations as orders.
ORDERS = {
    "disable": "Switch off {which}",
    "disable_and_freeze": "Switch off {which}, the other filters of the layer held fast at first",
    "reinitialize": "Draw the weights of {which} anew",
    MERGE: "Leave out {which}, which adds nothing of its own",
    REMOVE_LAYER: "Remove {where} as a whole",
    WIDEN: "Add {new} to {where}",
    INSERT_LAYER: "Insert a layer of {new} as layer {first}",
}


class EmbeddedImage(NamedTuple):
    """An image inside the page; width and height in pixels, so that nothing moves while it loads."""

    source: str
    alt: str
    width: int
    height: int


class NetworkFigure(NamedTuple):
    """One of the accepted networks, in words and as an image."""

    name: str
    words: str
    image: EmbeddedImage


class DecisionText(NamedTuple):
    """What was tried, whether it was accepted, and why and what is left, as sentences."""

    number: int
    tried: str
    accepted: bool
    outcome: str


def html_page(
    comparison: Mapping[str, Any],
    seeds: int,
    figures: Mapping[str, Mapping[str, bytes]],
    chosen: Mapping[str, Job],
    rule: Registry,
) -> str:
    """Return all of `index.html`.

    Args:
        figures: PNG files by task and kind.
        chosen: For each task the minimization whose networks are shown.

    Raises:
        UserError: Its pictures or decisions are missing.
    """
    tasks = [
        {
            "name": task,
            "figures": [
                (FIGURES[kind], embedded(content, f"{task}: {FIGURES[kind]}"))
                for kind, content in figures[task].items()
            ],
            "tables": tables.task_tables(comparison, task, seeds),
            "job": chosen[task],
            "networks": network_figures(chosen[task], comparison["results"][chosen[task].name]),
            "decisions": decision_texts(chosen[task]),
        }
        for task in comparison["summary"]
    ]
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
        results=tables.result_table(comparison),
        tasks=tasks,
        rule=RULES[rule.rule].format(tolerance=rule.tolerance),
    )


def network_figures(job: Job, result: Mapping[str, Any]) -> list[NetworkFigure]:
    """The initial network and all that were accepted, in order, on the first of the images.

    Raises:
        UserError: A picture is missing; the message names the stage to run.
    """
    found = []
    networks = accepted_networks(result)
    for number, network in enumerate(networks):
        decision = network["decision"]
        last = " (final)" if number and number == len(networks) - 1 else ""
        name = f"After decision {decision}{last}" if decision else "Initial network"
        filters = listed(network["filters_kept"])
        words = (
            f"filters {filters}; {network['parameters']} parameters; "
            f"{network['macs_per_pixel']:g} MACs/pixel; "
            f"validation {result['loss']} {network['validation']:.4g}"
        )
        alt = f"{job.task}, {name}: kernels and outputs of the filters {filters}, removed ones crossed out"
        picture = files.read_bytes(pictures_folder(job.output, decision) / "1.png", job.command)
        found.append(NetworkFigure(name, words, embedded(picture, alt)))
    return found


def embedded(png: bytes, alt: str) -> EmbeddedImage:
    width, height = (int.from_bytes(part) for part in (png[SIZE][:4], png[SIZE][4:]))
    return EmbeddedImage(f"data:image/png;base64,{base64.b64encode(png).decode()}", alt, width, height)


def code(text: str) -> markupsafe.Markup:
    """Text with inline code between backticks, as in Markdown."""
    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def decision_texts(job: Job) -> list[DecisionText]:
    """A minimization's decisions in words, from `decisions.json`."""
    return [decision_text(record) for record in files.read_json(job.output / "decisions.json", job.command)]


def decision_text(record: Mapping[str, Any]) -> DecisionText:
    steps = record["session"]["steps"]
    trained = f": {plural(steps, 'training step')}" if steps else ""
    left = f"Filters left: {listed(record['filters_kept'])}; {plural(record['parameters'], 'parameter')}."
    outcome = f"{record['reason']}. {left}"
    return DecisionText(record["number"], f"{tried(record)}{trained}.", record["accepted"], outcome)


def tried(record: Mapping[str, Any]) -> str:
    """What the decision was about, as an order."""
    if not record["filters"]:
        train_on = record["alteration"] == TRAIN_ON
        return "Train on without a change" if train_on else "Train what is left once more"
    layers: dict[int, list[int]] = {}
    for layer, index in record["filters"]:
        layers.setdefault(layer, []).append(index)
    each = [
        f"layer {layer} filter{'s' * (len(found) > 1)} {listed(found)}" for layer, found in layers.items()
    ]
    return ORDERS[record["alteration"]].format(
        which=", ".join(each),
        where=f"layer{'s' * (len(layers) > 1)} {listed(sorted(layers))}",
        new=plural(len(record["filters"]), "filter"),
        first=min(layers),
    )


def listed(values: Sequence[object]) -> str:
    """`1, 2 and 3`."""
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
