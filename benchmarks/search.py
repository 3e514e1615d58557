"""A whole search for the smallest network: against Torch-Pruning, Optuna and the exhaustive search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import optuna
from rows import TASK, Row, settings

from selfscale.data.prepare import load_split
from selfscale.nn.fcn import size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.trainer import Plan
from selfscale.paths import PREPARED, TARGETS
from selfscale.pipeline import train as pipeline
from selfscale.search.first_session import first_session
from selfscale.search.importance import STRATEGIES
from selfscale.search.loop import minimize

SEEDS = (0, 1, 2)
TRIALS, TRIAL_STEPS = 15, 3000


class Found(NamedTuple):
    steps: int
    seconds: float
    macs: float
    test: float


def measure() -> Iterator[Row]:
    import torch
    from peers import OPTIMIZERS, pruned

    chosen = settings()
    torch.set_num_threads(chosen.execution.threads)
    ours, optuna_search = [], []
    torch_pruning: dict[str, list[Found]] = {name: [] for name in OPTIMIZERS}
    for seed in SEEDS:
        mine, trainer, limit = selfscale(seed)
        test = load_split(PREPARED, TARGETS / TASK, "test")
        ours.append(mine)
        for name, optimizer in OPTIMIZERS.items():
            found = pruned(chosen, trainer.train, trainer.validation, test, seed, optimizer)
            torch_pruning[name].append(Found(found.steps, found.seconds, found.macs, found.test))
        optuna_search.append(by_optuna(seed, limit))
    session = chosen.minimization.removal.steps
    for name, found in torch_pruning.items():
        yield from compared(
            ours,
            found,
            f"Torch-Pruning, {name}",
            f"one filter less by magnitude, {session} steps of fine-tuning, until beyond the same "
            "tolerance; the same first and last session",
            {"seconds": 1.0, "macs": 1.0, "test": 1.0},
        )
    yield from compared(
        ours,
        optuna_search,
        "Optuna",
        f"TPE over 0 to 2 layers of 1 to 5 filters, {TRIALS} trials of {TRIAL_STEPS} steps, fewest "
        "MACs within the same limit; our training step",
        {"seconds": 0.25, "macs": 1.0, "test": 1.0},
    )


def selfscale(seed: int) -> tuple[Found, pipeline.Trainer, float]:
    """Training and minimization as the pipeline does them, without MLflow; and the limit for others."""
    chosen = settings()
    started = time.perf_counter()
    model = pipeline.new_network(chosen, TASK, seed, 0, 0)
    trainer = first = pipeline.trainer_for(chosen, TASK, MaskedNetwork(model))
    session, initial = first_session(trainer, seed, 0)
    cycle = chosen.training.evaluations
    scores = [score for _, score in session.scores]
    curves = [scores[start : start + cycle] for start in range(0, len(scores), cycle)]
    steps, limit = session.steps, initial.score(trainer.loss) * (1 + chosen.minimization.tolerance)
    strategy = chosen.strategies["random"]
    select = STRATEGIES.bind(strategy.select, strategy.arguments, "strategies")
    for record, _, kept, *_ in minimize(
        trainer, select, chosen.minimization, seed=seed, initial=initial, curves=curves
    ):
        trainer, steps = kept, steps + record.session.steps
    taken = time.perf_counter() - started
    test = trainer.evaluator(load_split(PREPARED, TARGETS / TASK, "test"), (trainer.loss,))
    found = Found(steps, taken, trainer.network.size().macs_per_pixel, test.score(trainer.loss))
    return found, first, limit


def by_optuna(seed: int, limit: float) -> Found:
    """What a user would let Optuna do: the fewest multiply-accumulates whose score is within the limit."""
    chosen = settings()
    started = time.perf_counter()
    tests: dict[int, tuple[float, float]] = {}

    def objective(trial: optuna.Trial) -> float:
        depth = trial.suggest_int("depth", 0, 2)
        widths = [trial.suggest_int(f"width_{layer}", 1, 5) for layer in range(depth)]
        network = chosen.network.model_copy(update={"widths": widths})
        theirs = chosen.model_copy(update={"network": network})
        model = pipeline.new_network(theirs, TASK, seed, trial.number, 0)
        trainer = pipeline.trainer_for(theirs, TASK, MaskedNetwork(model))
        rng = np.random.default_rng((seed, trial.number))
        _, validation = trainer.session(Plan(TRIAL_STEPS, chosen.training.evaluations), rng)
        test = trainer.evaluator(load_split(PREPARED, TARGETS / TASK, "test"), (trainer.loss,))
        macs, score = size(model).macs_per_pixel, validation.score(trainer.loss)
        tests[trial.number] = macs, test.score(trainer.loss)
        # What is not good enough is worse than any that is, and the worse the further it is away.
        return macs if score <= limit else 1e3 * (1 + score)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=TRIALS)
    macs, test = tests[study.best_trial.number]
    return Found(TRIALS * TRIAL_STEPS, time.perf_counter() - started, macs, test)


def compared(
    ours: list[Found], peer: list[Found], name: str, allowed: str, targets: dict[str, float]
) -> Iterator[Row]:
    what = {"steps": "steps", "seconds": "s", "macs": "MACs/pixel", "test": "MAE"}
    for number, (field, unit) in enumerate(what.items()):
        yield Row(
            f"a whole search, {'test score' if field == 'test' else field}; {name}",
            unit,
            [getattr(found, field) for found in ours],
            [getattr(found, field) for found in peer],
            allowed if number == 0 else "",
            at_most=targets.get(field),
        )
