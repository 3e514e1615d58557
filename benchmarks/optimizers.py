"""Train networks with several optimizers for equally many steps: the table of docs/training.md.

    python benchmarks/optimizers.py

Run it in the project's folder after `dvc repro`, with these tasks in `params.yaml`. Every network is
trained as `selfscale train` does it, but with the optimizer, rate and clipping of the column, and to the
last cycle. One that has learnt nothing counts; one that died starts anew, which is counted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from itertools import product
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

from selfscale.cli import loading
from selfscale.paths import PREPARED, TARGETS, Training
from selfscale.progress import SILENT
from selfscale.reporting import tables
from selfscale.settings import Settings

# By name: what differs from the settings' section `training`. Adam's rate is the one it was tuned for.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SOAP": {},
    "Adam": {"optimizer": "adam", "learning_rate": 0.005, "clip_norm": 0.1},
    "Muon": {"optimizer": "muon"},
}


def test_score(settings: Settings, task: str, seed: int, changes: Mapping[str, Any]) -> tuple[float, int]:
    """Test score of a network that was trained with these changes, and how often it died before."""
    pipeline = loading.import_pipeline(settings.execution)
    from selfscale.data.prepare import load_split
    from selfscale.nn.masking import MaskedNetwork

    first = settings.training.first.model_copy(update={"min_gain": -1.0})  # so that all cycles are run
    training = settings.training.model_copy(update={"first": first, **changes})
    chosen = settings.model_copy(update={"training": training})
    started, _ = pipeline.living_network(chosen, Training(task, seed), SILENT)
    trainer = pipeline.trainer_for(chosen, task, MaskedNetwork(started.model))
    test = load_split(PREPARED, TARGETS / task, "test")
    return trainer.evaluator(test, (trainer.loss,)).score(trainer.loss), started.start - 1


def summary(scores: Mapping[str, list[float]]) -> str:
    """In how many trainings each other optimizer ends worse than the first, and by which mean factor."""
    base, *others = scores
    found = []
    for name in others:
        ratios = [log(other / ours) for ours, other in zip(scores[base], scores[name], strict=True)]
        worse = sum(ratio > 0 for ratio in ratios)
        found.append(
            f"{name}: {exp(fmean(ratios)):.2f} times the loss of {base} (geometric mean), "
            f"higher in {worse} of {len(ratios)} trainings"
        )
    return "\n".join(found)


def main() -> None:
    """Print mean test scores, their range over the seeds, and the factors, as Markdown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sobel", "canny", "otsu"])
    parser.add_argument("--widths", nargs="+", default=["3", "3,2", "5,5"], help="hidden filters, as 5,5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    settings = loading.load(Path("params.yaml"))
    rows: list[tuple[str, ...]] = [("task", "filters", *OPTIMIZERS)]
    scores: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}
    died = dict.fromkeys(OPTIMIZERS, 0)
    for task, widths in product(given.tasks, given.widths):
        network = settings.network.model_copy(update={"widths": [int(n) for n in widths.split(",")]})
        chosen, cells = settings.model_copy(update={"network": network}), []
        for name, changes in OPTIMIZERS.items():
            trained = [test_score(chosen, task, seed, changes) for seed in given.seeds]
            found, deaths = zip(*trained, strict=True)
            scores[name] += found
            died[name] += sum(deaths)
            cells.append(f"{fmean(found):.2g} ({min(found):.2g} to {max(found):.2g})")
        rows.append((task, widths.replace(",", ", "), *cells))
        print(rows[-1], flush=True)
    print(f"{tables.markdown(rows)}\n{summary(scores)}\nDied and started anew: {died}")


if __name__ == "__main__":
    main()
