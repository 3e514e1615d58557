"""All measurements of speed, in one table: docs/performance.md.

    make bench

It first runs what of the pipeline is out of date. Leave the machine alone meanwhile; by its parts it
takes an hour or two on two cores. Words choose measurements (`python benchmarks/performance.py training
inference`, in the project's folder after `dvc repro`); the rest of the table stays as it was. Needs the
extra `bench`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import joblib
import psutil
import rows

from selfscale import files
from selfscale.cli import loading
from selfscale.errors import UserError
from selfscale.reporting import tables

MEASUREMENTS = {
    "training": "training_speed",
    "tracking": "tracking_cost",
    "search": "search",
    "classification": "fashion_mnist",
    "exhaustive": "exhaustive_steps",
    "growth": "growth",
    "inference": "inference",
    "data": "data_size",
}
RESULTS = Path("benchmarks/performance")
PAGE = Path("docs/performance.md")
LIBRARIES = ("tensorflow", "keras", "torch", "torch-pruning", "optuna", "scikit-image", "mlflow")
INTRODUCTION = """# Performance

Written by `make bench`, or by one part of it: each section says when. Each row compares two things
measured in turns in one run; what is compared with what stands before and after the semicolon. Figures
are medians (smallest to largest) of the repetitions; only the ratio, ours divided by the peer's, means
something on another machine.
"""
# What stands behind targets that are missed; said only where one is.
WHY = {
    "training": "Why: whole images have sixteen times the pixels in a step, and so need fewer steps. On "
    "2026-11-29 the machine was twice as fast: 5, 5 trained 1.69 times as many steps a second as PyTorch "
    "with Adam, and blocks gained 1.61.",
    "search": "Why: training steps are 77 % of a search's seconds, evaluation 13 % (a profile of seed 0). A "
    "search tries a whole layer for 2000 steps, and trains what is left for 1500. Torch-Pruning "
    "removes filter after filter until one fails. Other block shapes, one product for several "
    "kernels, static shapes and evaluation of fewer images at once were tried without gain.",
    "classification": "Why: `minimize` spends a quarter of the steps on finding a size, which "
    "Torch-Pruning is told. 0.001 is 10 of the 10,000 test images. Distillation, averaged weights and "
    "renewed statistics of normalizations were tried without gain, on one seed.",
    "growth": "Why: a step of 64, 64 filters has 120 times the multiply-accumulates of one of 5, 5. "
    "Before 2026-11-30 this measured networks that had died in training: 2.2 times the seconds.",
    "inference": "Why: Sobel is two filters of 3x3; the network has hundreds of multiply-accumulates per "
    "pixel. Seven ways were tried without gain.",
    "data": "Why: a part of the time does not grow with the photographs: the ratio rises with their number.",
}
NOT_MEASURED = "- **Not measured**: a GPU, and peers that need other versions of TensorFlow or Keras.\n"


def page() -> str:
    """The whole table, of what has been measured."""
    parts, summary = list[str](), list[str]()
    header = ("ours; the peer", "ours", "the peer", "ratio", "target", "what the peer was allowed")
    for name in MEASUREMENTS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            measured = files.read_json(path.with_suffix(".about.json"), "make bench")
            found = rows.load(path)
            targets = [row for row in found if row.target]
            missed = [brief(row) for row in targets if "missed" in row.target]
            summary.append(
                f"- **{name.capitalize()}**: {len(targets) - len(missed)} of {len(targets)} targets met"
                + (f"; missed: {'; '.join(missed)}." if missed else ".")
            )
            why = f"\n{WHY[name]}\n" if missed and name in WHY else ""
            parts.append(f"## {name.capitalize()}\n\n{measured['about']}\n{why}")
            parts.append(tables.markdown([header, *(row.cells() for row in found)]))
    return "\n".join([INTRODUCTION, *summary, NOT_MEASURED, *parts])


def brief(row: rows.Row) -> str:
    """A row in the summary: what is compared with what, and the ratio."""
    return f"{row.what.replace('; ', ' against ')} ({median(row.ratios):.3g})"


def about() -> str:
    """The machine, the versions and the date."""
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{datetime.date.today()}, {joblib.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {versions}; load before the measurement: "
        f"{os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", nargs="*", metavar="|".join(MEASUREMENTS))
    chosen = parser.parse_args().measurements or list(MEASUREMENTS)
    for name in chosen:
        if name not in MEASUREMENTS:
            raise UserError(f"{name}: unknown measurement; known are {', '.join(MEASUREMENTS)}")
    loading.import_pipeline(rows.settings().execution)
    for name in chosen:
        print(f"{name} ...", file=sys.stderr)
        path, words = RESULTS / f"{name}.json", about()
        try:
            module = importlib.import_module(MEASUREMENTS[name])
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name}: is not installed; pip install -e '.[bench]'") from error
        found = []
        for row in module.measure():
            found.append(row)
            print("  " + " | ".join(row.cells()), file=sys.stderr)
        rows.save(found, path)
        files.write_json(path.with_suffix(".about.json"), {"about": words})
        files.write_text(PAGE, page())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
