"""The exhaustive benchmark, the reference for the ideal size: networks of all widths trained from scratch.

`benchmarks/exhaustive.py` trains them; the comparison's figures show the best of each size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from selfscale import files
from selfscale.errors import UserError
from selfscale.paths import TARGETS
from selfscale.schemas import Benchmark, Targets
from selfscale.settings import Settings

TRAINED = ("completed", "stagnated")  # how the session of a network ends that has learnt something

log = logging.getLogger(__name__)


def benchmark_path(task: str) -> Path:
    return Path("benchmarks") / f"exhaustive-{task}.json"


def inputs_digest(settings: Settings, task: str) -> str:
    """Hash the settings and images that training from scratch depends on, but for the widths."""
    inputs = settings.model_dump(include={"training", "evaluation", "network"}) | {
        "task": settings.tasks[task].model_dump(),
        "targets": files.read_json(TARGETS / task / "manifest.json", f"targets {task}", Targets),
    }
    del inputs["network"]["widths"]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def read_benchmark(settings: Settings, task: str) -> dict[str, Any] | None:
    """Read the benchmark of a task; None if it was not run, or not with these settings and images."""
    path = benchmark_path(task)
    if not path.exists():
        return None
    try:
        benchmark: dict[str, Any] = files.read_json(path, "", Benchmark)
    except UserError as error:
        message = f"{path}: is damaged; delete it, or run `python benchmarks/exhaustive.py {task}` again"
        raise UserError(message) from error
    if benchmark["inputs"] == inputs_digest(settings, task):
        return benchmark
    log.warning("%s: made with other settings or images, and so left out", path)
    return None


def means(networks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Average the scores of equal widths over the seeds in which the network trained; smallest first.

    Seeds in which every start died are left out, and counted as `failed`: to the benefit of the
    reference. Widths that never trained have scores None.
    """

    def key(network: Mapping[str, Any]) -> tuple[float, list[int]]:
        return network["macs_per_pixel"], network["widths"]

    found = []
    for (macs, widths), group in groupby(sorted(networks, key=key), key):
        seeds = list(group)
        trained = [network for network in seeds if network["ended"] in TRAINED]
        scores = {
            split: fmean(network[split] for network in trained) if trained else None
            for split in ("validation", "test")
        }
        sizes = {"widths": widths, "parameters": seeds[0]["parameters"], "macs_per_pixel": macs}
        found.append({**sizes, **scores, "seeds": len(trained), "failed": len(seeds) - len(trained)})
    return found


def frontier(networks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of `means(networks)`, those that none of the same size or smaller beats in mean validation score.

    Chosen by validation, so that their test scores stay unbiased by the choice.
    """
    points = [point for point in means(networks) if point["validation"] is not None]
    return [
        point
        for point in points
        if not any(
            other["macs_per_pixel"] <= point["macs_per_pixel"] and other["validation"] < point["validation"]
            for other in points
        )
    ]
