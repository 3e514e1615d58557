"""The model card: what a registered network does, its provenance, and its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfscale.reporting.pareto import validation_scores
from selfscale.reporting.statistics import Result, relative, score
from selfscale.settings import Registry
from selfscale.tracking.points import summary

if TYPE_CHECKING:
    from selfscale.inference.latency import Speed  # with TensorFlow

SHOWN = 12  # characters of a fingerprint


def card(
    result: Result,
    prepared: Mapping[str, Any] | None,
    targets: Mapping[str, Any],
    rule: Registry,
    speed: Speed,
    initial: Speed,
    block: str = "",
    *,
    picked: bool = False,
) -> str:
    """Return Markdown from a minimization's result and the manifests of its images and targets.

    Args:
        prepared: None for a problem, which has data of its own.
        speed, initial: Of the network, and of the initial one.
        block: Shape of the blocks of pixels that the registered model runs on; empty: it is the plain one.
        picked: `rule` did not choose the network, but somebody with `selfscale pick`.
    """
    interval, tested = result["test_interval"]["final"], "the test examples"
    if prepared:
        tested = f"{prepared['counts']['test']['photographs']} photographs"
    form = (
        f"runs on blocks of {block} pixels; the plain model is in `extra_files`"
        if block
        else "a plain Keras model"
    )
    facts = provenance(result, prepared, targets) | {"speed": in_turns(speed, initial), "form": form}
    return "\n".join(
        [
            headline(result, speed),
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {text} |" for name, text in facts.items()),
            "",
            "### Before and after",
            "",
            summary(result),
            "",
            f"95 % interval of the final test {result['loss']} over {tested}: {in_words(**interval)}.",
            "",
            "### Limits",
            "",
            *(f"- {limit}" for limit in limits(result, targets, rule, picked)),
        ]
    )


def headline(result: Result, speed: Speed) -> str:
    """One line, which is all that a table of versions has room for."""
    loss, test, before = result["loss"], score(result, "test"), score(result, "test", "initial")
    return (
        f"{result['strategy']}, seed {result['seed']}: "
        f"{result['macs_per_pixel'] / result['macs_per_pixel_initial']:.0%} of the multiply-accumulates, "
        f"{loss} {test:.4g} on the test images (initial network: {before:.4g}), "
        f"{speed.ms_per_megapixel:.3g} ms per megapixel."
    )


def provenance(
    result: Result, prepared: Mapping[str, Any] | None, targets: Mapping[str, Any]
) -> dict[str, str]:
    data = {"code": f"`{targets.get('code', '')[:SHOWN]}`"}
    if prepared:
        counts = ", ".join(f"{count['images']} {split}" for split, count in prepared["counts"].items())
        side, digest = prepared["size"], prepared["fingerprint"]
        data = {
            "images": f"source `{prepared['source']}`, gray {side}x{side} crops: {counts}",
            "data fingerprint": f"images `{digest[:SHOWN]}`, targets `{result['targets'][:SHOWN]}`",
        }
    return {
        "task": f"`{result['task']}`: {what_it_does(targets)}",
        **({"arguments": code(json.dumps(targets["arguments"]))} if targets["arguments"] else {}),
        **data,
        "strategy": f"`{result['strategy']}`, seed {result['seed']}",
    }


def what_it_does(targets: Mapping[str, Any]) -> str:
    if targets.get("problem"):
        return f"the problem {code(targets['problem'])}, with a model and data of its own"
    kind = "0 or 1 a pixel" if targets["discrete"] else "a gray value a pixel"
    if targets["operator"] is None:
        return f"learned from pairs of an input and its wanted output, {kind}"
    return f"imitates the operator {code(targets['operator'])}, {kind}"


def in_turns(speed: Speed, initial: Speed) -> str:
    return (
        f"{speed.ms_per_megapixel:.3g} ms per megapixel as `selfscale apply` runs it, "
        f"{speed.plain_ms_per_megapixel:.3g} as a plain model; the initial network: "
        f"{initial.ms_per_megapixel:.3g} and {initial.plain_ms_per_megapixel:.3g} "
        "(in turns, where it was registered)"
    )


def in_words(low: float, high: float | None) -> str:
    return "unknown" if high is None else f"{low:.4g} to {high:.4g}"


def limits(result: Result, targets: Mapping[str, Any], rule: Registry, picked: bool) -> Sequence[str]:
    changes = {
        split: relative(score(result, split), score(result, split, "initial"))
        for split in ("validation", "test")
    }
    changed = ", ".join(f"{split} {change:+.1%}" for split, change in changes.items() if change is not None)
    verdict = "within" if rule.within(*validation_scores(result)) else "**not within**"
    by_rule = {
        "smallest": "fewest multiply-accumulates within the tolerance",
        "score": "best score",
    }[rule.rule]
    chosen = (
        "Picked from the networks that were accepted on the way, by the validation split."
        if picked
        else f"Chosen from all strategies and seeds by the validation split ({by_rule}), which flatters its "
        "score there; the test split decided nothing."
    )
    own = [
        "Measured on crops of the images above only; noise, other scales or contrasts were not tried.",
        "Takes float images (N, height, width, 1) from 0 to 1; beyond their border it sees zeros.",
        "Its output can exceed 1." + (" It is continuous: threshold it." if targets["discrete"] else ""),
    ]
    return [
        f"On the validation split it is {verdict} the tolerance of {rule.tolerance:.0%} of the initial "
        f"network's {result['loss']} ({changed}); the initial network is not perfect either.",
        chosen,
        *(["Measured on the problem's own data only."] if targets.get("problem") else own),
    ]


def code(text: str) -> str:
    """Inline code in a Markdown table."""
    return f"`{text}`".replace("|", "\\|")
