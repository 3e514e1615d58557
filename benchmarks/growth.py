"""How time and sessions grow with the width of the network."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rows import TASK, Row, settings

from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Trainer
from selfscale.pipeline import train as pipeline
from selfscale.search.first_session import first_session
from selfscale.search.importance import STRATEGIES
from selfscale.search.loop import minimize
from selfscale.search_config import Limits

WIDTHS = (5, 16, 32, 64)
SEEDS = (0, 1, 2)
# Sessions so short that 64 filters a layer end on a laptop: what is counted is how many it takes.
SHORT = {"batch": 4, "crop": 24}
SESSION, LAYER, FIRST, SIDE = 100, 600, 300, 64


def measure() -> Iterator[Row]:
    counted = {width: [sessions(width, seed) for seed in SEEDS] for width in WIDTHS}
    small = counted[WIDTHS[0]]
    for width in WIDTHS[1:]:
        for index, (unit, at_most) in enumerate((("sessions", 4.0 if width == 64 else None), ("s", None))):
            yield Row(
                f"a minimization of {width}, {width} filters, {unit}; of 5, 5",
                unit,
                [found[index] for found in counted[width]],
                [found[index] for found in small],
                f"the same: magnitude, groups, sessions of {SESSION} steps ({LAYER}: layers), small images",
                at_most=at_most,
                note="filters kept: " + ", ".join(f"{found[2]:g}" for found in counted[width]),
            )


def sessions(width: int, seed: int) -> tuple[float, float, float]:
    """Sessions, seconds, and filters kept."""
    chosen = settings()
    training = chosen.training.model_copy(
        update={**SHORT, "first": chosen.training.first.model_copy(update={"steps": FIRST})}
    )
    network = chosen.network.model_copy(update={"widths": [width, width]})
    minimization = chosen.minimization.model_copy(
        update={
            "removal": chosen.minimization.removal.model_copy(update={"steps": SESSION}),
            "layers": chosen.minimization.layers.model_copy(update={"steps": LAYER}),
            "last_session_steps": 0,
            "limits": Limits(),
        }
    )
    chosen = chosen.model_copy(update={"training": training, "network": network})
    model = pipeline.new_network(chosen, TASK, seed, 0, 0)
    whole = pipeline.trainer_for(chosen, TASK, MaskedNetwork(model))
    trainer = Trainer(
        whole.network,
        middle(whole.train),
        middle(whole.validation),
        loss=whole.loss,
        settings=training,
        evaluator=whole.evaluator,
    )
    _, initial = first_session(trainer, seed, 0)
    started, count = time.perf_counter(), 0
    for record, _, kept, *_ in minimize(
        trainer,
        STRATEGIES.bind("magnitude", {}, "strategies"),
        minimization,
        seed=seed,
        initial=initial,
        curves=[],
    ):
        trainer, count = kept, count + bool(record.session.steps)
    return count, time.perf_counter() - started, sum(trainer.network.filters_kept)


def middle(split: Split) -> Split:
    """The pixels in the middle: evaluating 64 filters a layer on whole images would take all the time."""
    start = (split.images.shape[1] - SIDE) // 2
    part = slice(start, start + SIDE)
    return Split(split.images[:, part, part], split.targets[:, part, part], split.photograph)
