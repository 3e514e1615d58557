"""Made-up results of all minimizations of a project, for the tests of what is made from them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from selfscale.data_config import Task
from selfscale.files import write_array, write_bytes, write_json
from selfscale.inference.image_files import encode_png
from selfscale.nn.fcn import build
from selfscale.paths import PREPARED, TARGETS, Baseline, Job, pictures_folder
from selfscale.pipeline import compare as report
from selfscale.settings import Runs, Settings, Strategy

SEEDS = [0, 1, 2, 3, 4]


def settings(strategies: Sequence[str] = ("random", "cosine"), seeds: Sequence[int] = (0,)) -> Settings:
    return Settings(
        runs=Runs(tasks=["sobel"], strategies=list(strategies), seeds=list(seeds)),
        tasks={"sobel": Task(operator="sobel", loss="mae")},
        # The name does not matter, what it selects by does.
        strategies={name: Strategy(select="random" if name == "lots" else name) for name in strategies},
    )


INTERVAL = {"low": 0.001, "high": 0.009}


def result(task: str, strategy: str, seed: int = 0, macs: float = 275.0, score: float = 0.004) -> dict:
    scores = {"initial": {"mae": 0.005}, "final": {"mae": score}}
    return {
        "task": task,
        "strategy": strategy,
        "seed": seed,
        "loss": "mae",
        "filters_initial": [5, 5],
        "filters_kept": [3, 2],
        "parameters_initial": 886,
        "parameters": 281,
        "macs_per_pixel_initial": 875.0,
        "macs_per_pixel": macs,
        "validation": scores,
        "test": scores,
        "test_interval": {"initial": INTERVAL, "final": INTERVAL},
        "decisions": 12,
        "accepted": 5,
        "reverted": 7,
        "training_steps": 5800,
        "kept": [
            {"decision": 1, "filters_kept": [4, 5], "parameters": 735, "macs_per_pixel": 725.0}
            | {"validation": 0.0045, "test": 0.0046, "test_interval": INTERVAL},
            {"decision": 3, "filters_kept": [3, 2], "parameters": 281, "macs_per_pixel": macs}
            | {"validation": score, "test": score, "test_interval": INTERVAL},
        ],
    }


def baseline(task: str, seed: int, steps: int = 5800, score: float = 0.0045) -> dict:
    content = result(task, "", seed, 875.0, score) | {"filters_kept": [5, 5], "decisions": 0, "steps": steps}
    del content["strategy"]
    return content


def decision(
    number: int, alteration: str, filters: Sequence[Sequence[int]], accepted: bool
) -> dict[str, Any]:
    """What the page reads of a decision."""
    return {
        "number": number,
        "alteration": alteration,
        "filters": filters,
        "accepted": accepted,
        "reason": "score -7.5%, within the tolerance 10.0%" if accepted else "score +70.0%, not within it",
        "filters_kept": [4, 5],
        "parameters": 735,
        "session": {"steps": 600},
    }


def fill(settings: Settings) -> None:
    """Results and baselines of all runs in the working directory: cosine is a tenth worse than random."""
    images = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    images[0] //= 2  # there is more to see in the other one
    split = {"images": 2, "photographs": 2}
    counts = dict.fromkeys(("train", "validation", "test"), split)
    names = [{"split": "validation", "name": name} for name in "ab"]
    about = {"source": "sample", "size": 8, "fingerprint": "f", "counts": counts, "images": names}
    place = {"height": 8, "width": 8, "scale": 1.0, "top": 0, "left": 0, "sha256": "f"}
    about["images"] = [place | image for image in names]
    write_json(PREPARED / "manifest.json", about)
    write_array(PREPARED / "validation.npy", images)
    for task in settings.runs.tasks:
        write_json(TARGETS / task / "manifest.json", {"images": "f", "discrete": False})
        write_array(TARGETS / task / "validation.npy", images.astype(np.float16) / 255)
    for job in report.jobs(settings):
        score = 0.004 * (1 + job.seed) * (1.1 if job.strategy == "cosine" else 1.0)
        fill_job(job, result(job.task, job.strategy, job.seed, score=score))
        write_json(Baseline(job.task, job.seed).result, baseline(job.task, job.seed))
        for path in (job.training.output / "initial.keras", job.output / "compact.keras"):
            write_bytes(path, network())


@cache
def network() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        build([1], kernel=1).save(path)
        return path.read_bytes()


def fill_job(job: Job, content: dict[str, Any]) -> None:
    write_json(job.output / "result.json", content)
    decisions = [
        decision(1, "disable", [[0, 4]], True),
        decision(2, "remove_layer", [[1, 0], [1, 1]], False),
        decision(3, "disable", [[0, 3], [1, 0], [1, 1], [1, 2]], True),
    ]
    write_json(job.output / "decisions.json", decisions)
    for number in (0, 1, 3):
        picture = encode_png(np.full((120, 200), 50 * number, np.uint8))
        write_bytes(pictures_folder(job.output, number) / "1.png", picture)


def accepted(decision: int, macs: float, validation: float, test: float) -> dict:
    """A network on the way of a minimization."""
    return {
        "decision": decision,
        "filters_kept": [decision],
        "parameters": int(macs) + 1,
        "macs_per_pixel": macs,
        "validation": validation,
        "test": test,
        "test_interval": INTERVAL,
    }


def way(*networks: dict) -> dict:
    """A result with these networks on the way."""
    scores = {split: {"initial": {"mae": score}, "final": {"mae": 0.02}} for split, score in FIRST.items()}
    return result("sobel", "random") | scores | {"kept": list(networks)}


FIRST = {"validation": 0.010, "test": 0.011}  # scores of the initial network
# Two minimizations, and the networks on their ways.
WAY_JOBS = [Job("sobel", "random", seed) for seed in (0, 1)]
WAYS = {
    # 300 is beaten by 200 on validation, however good it is on test.
    WAY_JOBS[0].name: way(
        accepted(2, 300.0, 0.005, 0.001), accepted(3, 200.0, 0.004, 0.006), accepted(5, 100.0, 0.008, 0.007)
    ),
    WAY_JOBS[1].name: way(accepted(1, 150.0, 0.006, 0.005)),
}
