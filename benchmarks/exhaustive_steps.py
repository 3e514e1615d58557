"""Training steps of minimizations against those of the exhaustive search, counted from their results."""

from __future__ import annotations

from collections.abc import Iterator

from exhaustive import run
from rows import TASK, Row, settings

from selfscale import files
from selfscale.paths import MINIMIZED
from selfscale.reporting import exhaustive


def measure() -> Iterator[Row]:
    """The minimizations of the project's folder, each with its initial training, against both ways.

    The exhaustive search is made now, unless `exhaustive.py` was run with these settings and images.
    """
    chosen = settings()
    benchmark = exhaustive.read_benchmark(chosen, TASK)
    if benchmark is None:
        benchmark = run(chosen, TASK, seeds=[0], depths=[0, 1, 2], widths=[1, 2, 3, 4, 5])
    results = [
        files.read_json(path, f"minimize {TASK}")
        for path in sorted(MINIMIZED.glob(f"{TASK}-*-seed-*/result.json"))
    ]
    ours = [float(found["training_steps"] + found["training_steps_initial"]) for found in results]
    ways = {"first_session": "each until it stagnates", "equal_steps": f"{benchmark['steps']} steps each"}
    for way, recipe in ways.items():
        networks = benchmark["networks"][way]
        steps = float(sum(network["training_steps"] for network in networks))
        seeds = len(benchmark["seeds"])
        yield Row(
            f"a whole search, steps; exhaustive search, {recipe}",
            "steps",
            ours,
            [steps] * len(ours),
            f"{len(networks)} trainings from scratch: all widths, {seeds} seed{'s' * (seeds > 1)} each",
            at_most=0.1,
            note=f"ours: {len(ours)} minimizations, with the training of their initial networks",
        )
