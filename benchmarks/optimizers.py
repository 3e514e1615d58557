"""Train initial networks with several optimizers: the table of docs/results.md.

    python benchmarks/optimizers.py

Run it in the project's folder after `dvc repro`, with these tasks in `params.yaml`. Every network is
trained as `selfscale train` does it, but with the optimizer, rate and clipping of the row.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any

from selfscale.cli import loading
from selfscale.paths import PREPARED, TARGETS, Training
from selfscale.progress import SILENT
from selfscale.reporting import tables
from selfscale.reporting.statistics import estimate

# By name: what differs from the settings' section `training`. Adam's rate is the one it was tuned for.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SOAP": {},
    "SOAP, rate 0.003": {"learning_rate": 0.003},
    "SOAP, averages of 20 steps": {"arguments": {"beta_2": 0.95, "shampoo_beta": 0.95}},
    "Adam": {"optimizer": "adam", "learning_rate": 0.005, "clip_norm": 0.1},
    "Muon": {"optimizer": "muon"},
}


def main() -> None:
    """Print mean test scores with intervals over the seeds, as Markdown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sobel", "canny", "otsu"])
    parser.add_argument("--widths", nargs="+", default=["3", "3,2", "5,5"], help="hidden filters, as 5,5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    settings = loading.load(Path("params.yaml"))
    pipeline = loading.import_pipeline(settings.execution)
    from selfscale.data.prepare import load_split
    from selfscale.nn.masking import MaskedNetwork

    rows: list[tuple[str, ...]] = [("task", "filters", *OPTIMIZERS)]
    for task, widths in product(given.tasks, given.widths):
        test, cells = load_split(PREPARED, TARGETS / task, "test"), []
        network = settings.network.model_copy(update={"widths": [int(n) for n in widths.split(",")]})
        for changes in OPTIMIZERS.values():
            training = settings.training.model_copy(update=changes)
            chosen = settings.model_copy(update={"network": network, "training": training})
            scores = []
            for seed in given.seeds:
                started, _ = pipeline.living_network(chosen, Training(task, seed), SILENT)
                trainer = pipeline.trainer_for(chosen, task, MaskedNetwork(started.model))
                scores.append(trainer.evaluator(test, (trainer.loss,)).score(trainer.loss))
            cells.append(tables.plus_minus(estimate(scores)._asdict(), ".2g"))
        rows.append((task, widths.replace(",", ", "), *cells))
        print(rows[-1], flush=True)
    print(tables.markdown(rows), end="")


if __name__ == "__main__":
    main()
