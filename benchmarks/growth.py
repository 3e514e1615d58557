"""How time and sessions grow with the width of the network."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rows import TASK, Row, settings

from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Trainer
from selfscale.pipeline import train as pipeline
from selfscale.search.first_session import first_session
from selfscale.search.importance import STRATEGIES
from selfscale.search.loop import minimize
from selfscale.search_config import Limits
from selfscale.settings import Settings

WIDTHS = (5, 16, 32, 64)
SEEDS = (0, 1, 2)
# Sessions so short that 64 filters a layer end on a laptop: what is counted is how many it takes.
SHORT = {"batch": 4, "crop": 24}
RATES = (0.01, 0.003, 0.001, 0.0003)  # in so small batches, wide networks die at the highest
SESSION, LAYER, FIRST, SIDE = 100, 600, 300, 64


def measure() -> Iterator[Row]:
    counted = {width: [sessions(width, seed) for seed in SEEDS] for width in WIDTHS}
    small = counted[WIDTHS[0]]
    for width in WIDTHS[1:]:
        for index, unit in enumerate(("sessions", "s")):
            yield Row(
                f"a minimization of {width}, {width} filters, {unit}; of 5, 5",
                unit,
                [found[index] for found in counted[width]],
                [found[index] for found in small],
                f"the same: magnitude, groups, sessions of {SESSION} steps ({LAYER}: layers), small images",
                at_most=4.0 if width == WIDTHS[-1] else None,
                note="filters kept: " + ", ".join(f"{found[2]:g}" for found in counted[width]),
            )


def sessions(width: int, seed: int) -> tuple[float, float, float]:
    """Sessions, seconds, and filters kept."""
    chosen, trainer, initial = living(width, seed)
    started, count = time.perf_counter(), 0
    for record, _, kept, *_ in minimize(
        trainer,
        STRATEGIES.bind("magnitude", {}, "strategies"),
        chosen.minimization,
        seed=seed,
        initial=initial,
        curves=[],
    ):
        trainer, count = kept, count + bool(record.session.steps)
    return count, time.perf_counter() - started, sum(trainer.network.filters_kept)


def living(width: int, seed: int) -> tuple[Settings, Trainer, Evaluation]:
    """Settings, and a network after its first session, at the highest rate at which it lives."""
    for rate in RATES:
        chosen = short(width, rate)
        model = pipeline.new_network(chosen, TASK, seed, 0, 0)
        whole = pipeline.trainer_for(chosen, TASK, MaskedNetwork(model))
        trainer = Trainer(
            whole.network,
            middle(whole.train),
            middle(whole.validation),
            loss=whole.loss,
            settings=chosen.training,
            evaluator=whole.evaluator,
        )
        session, initial = first_session(trainer, seed, 0)
        if session.ended in ("completed", "stagnated"):
            return chosen, trainer, initial
    raise AssertionError(f"{width}, {width} filters, seed {seed}: died at every rate")


def short(width: int, rate: float) -> Settings:
    """Settings of short sessions; the rates of trials keep their ratios to that of the first session."""
    chosen = settings()
    training, minimization = chosen.training, chosen.minimization
    part = rate / training.learning_rate
    first = training.first.model_copy(update={"steps": FIRST})
    removal = minimization.removal.model_copy(update={"steps": SESSION})
    layers = minimization.layers.model_copy(
        update={"steps": LAYER, "learning_rate": part * minimization.layers.learning_rate}
    )
    changed = {
        "training": training.model_copy(update={**SHORT, "learning_rate": rate, "first": first}),
        "network": chosen.network.model_copy(update={"widths": [width, width]}),
        "minimization": minimization.model_copy(
            update={
                "removal": removal,
                "layers": layers,
                "learning_rate": part * minimization.learning_rate,
                "last_session_steps": 0,
                "limits": Limits(),
            }
        ),
    }
    return chosen.model_copy(update=changed)


def middle(split: Split) -> Split:
    """The pixels in the middle: evaluating 64 filters a layer on whole images would take all the time."""
    start = (split.images.shape[1] - SIDE) // 2
    part = slice(start, start + SIDE)
    return Split(split.images[:, part, part], split.targets[:, part, part], split.photograph)
