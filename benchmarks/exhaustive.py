"""Train networks of all widths from scratch: the reference for the ideal size of a task's network.

    python benchmarks/exhaustive.py sobel

Run it in the project's folder after `dvc repro`. Each network is trained in two ways: as `selfscale
train` trains the initial network, and in one session of as many steps as a minimization took with
its initial training. A run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from selfscale import files
from selfscale.cli import loading
from selfscale.data.shards import ordered_map
from selfscale.errors import UserError
from selfscale.paths import MINIMIZED, PREPARED, STATE, TARGETS, Training, only_one
from selfscale.progress import SILENT
from selfscale.reporting import exhaustive, tables
from selfscale.settings import Settings

log = logging.getLogger(__name__)


class Network(NamedTuple):
    """One network to train; `steps` None: by the recipe of `selfscale train`."""

    widths: tuple[int, ...]
    seed: int
    steps: int | None

    @property
    def name(self) -> str:
        recipe = f"{self.steps}-steps" if self.steps else "first-session"
        return f"{recipe}-widths-{'-'.join(map(str, self.widths)) or 'none'}-seed-{self.seed}"


def train(settings: Settings, task: str, state: Path, network: Network) -> dict[str, Any]:
    """Train a network unless `state` has it already; a dead one is restarted as `selfscale train` does.

    Its size, steps of the last start, and validation and test score. Runs in a worker process.
    """
    done = state / f"{network.name}.json"
    if done.exists():
        return dict(files.read_json(done, "train"))
    pipeline = loading.import_pipeline(settings.execution)
    import numpy as np

    from selfscale.data.prepare import load_split
    from selfscale.nn.fcn import size
    from selfscale.nn.masking import MaskedNetwork
    from selfscale.nn.trainer import Plan

    # The copy is not checked: settings for the pipeline have a hidden layer, here there may be none.
    chosen = settings.network.model_copy(update={"widths": list(network.widths)})
    settings = settings.model_copy(update={"network": chosen})
    if network.steps is None:
        started, steps = pipeline.living_network(settings, Training(task, network.seed), SILENT)
        model, attempts = started.model, started.start
        record, validation = started.session, started.validation
        trainer = pipeline.trainer_for(settings, task, MaskedNetwork(model))
    else:
        for attempts in range(1, settings.training.first.restarts + 2):
            model = pipeline.new_network(settings, task, network.seed, attempts - 1, 0)
            trainer = pipeline.trainer_for(settings, task, MaskedNetwork(model))
            rng = np.random.default_rng((network.seed, 0, attempts - 1, 0))
            plan = Plan(network.steps, trainer.settings.evaluations)
            record, validation = trainer.session(plan, rng)
            if record.ended in exhaustive.TRAINED:
                break
        steps = record.steps
    test = trainer.evaluator(load_split(PREPARED, TARGETS / task, "test"))
    result = {
        "widths": list(network.widths),
        "seed": network.seed,
        "starts": attempts,
        "ended": record.ended,
        "training_steps": steps,
        **size(model)._asdict(),
        # JSON has no other word for what is not a number.
        "validation": validation.score(trainer.loss) if validation.finite else None,
        "test": test.score(trainer.loss) if test.finite else None,
    }
    files.write_json(done, result)
    return result


def steps_of_minimizations(task: str) -> int:
    """Training steps of the task's minimizations with those of their initial networks, on average."""
    results = [
        files.read_json(path, f"minimize {task}") for path in MINIMIZED.glob(f"{task}-*-seed-*/result.json")
    ]
    if not results:
        raise UserError(
            f"{MINIMIZED}: has no minimization of {task}; run `selfscale minimize {task}` or name --steps"
        )
    return round(fmean(result["training_steps"] + result["training_steps_initial"] for result in results))


def run(
    settings: Settings,
    task: str,
    *,
    seeds: list[int],
    depths: list[int],
    widths: list[int],
    steps: int | None = None,
    workers: int = 2,
) -> dict[str, Any]:
    """Train every network of the grid in both ways; writes and returns `exhaustive-TASK.json`."""
    steps = steps_of_minimizations(task) if steps is None else steps
    inputs = exhaustive.inputs_digest(settings, task)
    grid = sorted({chosen for depth in depths for chosen in product(widths, repeat=depth)})
    networks = [Network(*one) for one in product(grid, sorted(set(seeds)), (None, steps))]
    # Named by what the networks depend on: with other settings or images, nothing is taken up again.
    state = STATE / f"exhaustive-{task}-{inputs}"
    with only_one(f"exhaustive-{task}"):
        results = []
        trained = ordered_map(partial(train, settings, task, state), networks, workers, "networks")
        for network, result in zip(networks, trained, strict=True):
            results.append(result)
            log.info("%s of %s: %s: %s", len(results), len(networks), network.name, result["ended"])
        curves = {"first_session": results[::2], "equal_steps": results[1::2]}
        benchmark = {
            "task": task,
            "inputs": inputs,
            "steps": steps,
            "seeds": seeds,
            "networks": curves,
            "frontiers": {name: exhaustive.frontier(found) for name, found in curves.items()},
        }
        files.write_json(exhaustive.benchmark_path(task), benchmark)
        shutil.rmtree(state)
    return benchmark


def table(benchmark: dict[str, Any]) -> str:
    """Mean scores over the seeds of each network, as Markdown; those of the frontiers have a star."""
    first, equal = (exhaustive.means(found) for found in benchmark["networks"].values())
    later = [f"{split}, {benchmark['steps']} steps" for split in ("validation", "test")]
    rows: list[tuple[str, ...]] = [("widths", "parameters", "MACs/pixel", "validation", "test", *later)]
    for points in zip(first, equal, strict=True):
        cells = [tables.numbers(points[0]["widths"]) or "none", str(points[0]["parameters"])]
        cells.append(f"{points[0]['macs_per_pixel']:g}")
        for point, chosen in zip(points, benchmark["frontiers"].values(), strict=True):
            if point["validation"] is None:
                cells += ["dead", "dead"]
            else:
                star = " *" if point in chosen else ""
                cells += [f"{point['validation']:.4g}{star}", f"{point['test']:.4g}"]
        rows.append(tuple(cells))
    return tables.markdown(rows)


def whole(lowest: int) -> Callable[[str], int]:
    """A parser of whole numbers from `lowest` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {lowest} on, not '{text}'")
        return int(text)

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", nargs="?", help="a task of the settings; default: the first of runs.tasks")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the file of settings")
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0, 1])
    parser.add_argument(
        "--depth", type=whole(0), nargs="+", default=[0, 1, 2], help="numbers of hidden layers"
    )
    parser.add_argument(
        "--widths", type=whole(1), nargs="+", default=[1, 2, 3, 4, 5], help="numbers of filters in a layer"
    )
    parser.add_argument(
        "--steps", type=whole(1), help="of the second way; default: what the minimizations took"
    )
    parser.add_argument("--workers", type=whole(1), default=2, help="processes side by side")
    return parser.parse_args()


def main() -> None:
    """Prints the table; what the user can put right becomes one line on stderr and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = arguments()
    try:
        settings = loading.load(given.params, task=given.task)
        benchmark = run(
            settings,
            given.task or settings.runs.tasks[0],
            seeds=given.seeds,
            depths=given.depth,
            widths=given.widths,
            steps=given.steps,
            workers=given.workers,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print(table(benchmark), end="")


if __name__ == "__main__":
    main()
