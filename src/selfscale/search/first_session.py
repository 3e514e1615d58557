"""The long first session of a network, before anything is removed (thesis 2.3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np

from selfscale.decisions import SessionRecord
from selfscale.nn.masking import MaskState
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Plan, Trainer, joined
from selfscale.progress import SILENT, Progress
from selfscale.search.acceptance import change_bounds

CONFIDENCE = 0.95
# A number in place of a cycle's, in the random numbers of the short sessions.
STARTS = 2**31


def best_start(
    trainer: Trainer,
    fresh: Callable[[int], keras.Model],
    seed: int,
    attempt: int,
    progress: Progress = SILENT,
) -> int:
    """Train several networks shortly, and leave the trainer's network as the best of them.

    So a start that is stuck is recognised: where two filters do the work of one, say, its loss is many
    times that of the others, though it is far from constant. A single start is not trained here.

    Args:
        trainer: Trainer of the first network; `trainer.settings.first` has the limits.
        fresh: Makes the network of a start, by its number, of the same layers.
        seed: Seed of the run.
        attempt: How often the run has started anew.
        progress: Listener.

    Returns:
        Number of training steps.
    """
    first, network = trainer.settings.first, trainer.network
    if first.starts == 1:
        return 0
    plan = Plan(first.start_steps, 1)
    found: list[tuple[float, int, MaskState]] = []
    for start in range(first.starts):
        network.model.set_weights(fresh(start).get_weights())
        trainer.reset()
        told = progress.of(tried=f"start {start + 1}", done=start * first.start_steps)
        rng = np.random.default_rng((seed, 0, attempt, STARTS, start))
        session, evaluation = trainer.session(plan, rng, told)
        score = evaluation.score(trainer.loss) if session.ended == "completed" else np.inf
        found.append((score, start, network.state()))
    network.restore(min(found, key=lambda one: one[:2])[2])
    trainer.reset()
    return first.starts * first.start_steps


def first_session(
    trainer: Trainer, seed: int, attempt: int, progress: Progress = SILENT
) -> tuple[SessionRecord, Evaluation]:
    """Train in cycles of warm-up and cosine decay until the validation loss stagnates.

    A cycle gains what the best loss before it falls by, relative, at least: the lower confidence bound
    over the validation photographs, as a smaller gain may be chance. The session has stagnated when two
    cycles in a row gained less than `min_gain`. It ends as `completed` when `max_cycles` are over before
    that. The network is left in the state after its best cycle.

    Args:
        trainer: Trainer of a fresh network; `trainer.settings.first` has the limits.
        seed: Seed of the run.
        attempt: How often this seed's network was restarted.
        progress: Listener.

    Returns:
        All cycles as one session, and the evaluation after the best one. If the first cycle fails,
        that cycle and its evaluation.
    """
    settings, loss = trainer.settings.first, trainer.loss
    progress = progress.of(most=settings.max_cycles * settings.steps, filters=trainer.network.filters_kept)
    plan = Plan(settings.steps, trainer.settings.evaluations)
    sessions: list[SessionRecord] = []
    best: Evaluation | None = None
    state: MaskState | None = None
    ended, idle = "completed", 0
    for cycle in range(settings.max_cycles):
        rng = np.random.default_rng((seed, 0, attempt, cycle))
        told = progress.of(tried=f"cycle {cycle + 1}", done=cycle * settings.steps)
        session, evaluation = trainer.session(plan, rng, told)
        sessions.append(session)
        is_alive = session.ended == "completed"
        if best is None and not is_alive:
            return session, evaluation
        # A later cycle that dies has gained nothing.
        gain = 1.0 if best is None else 0.0
        if best is not None and is_alive:
            gain = -change_bounds(evaluation.sums[loss], best.sums[loss], CONFIDENCE)[1]
        if best is None or (is_alive and evaluation.score(loss) < best.score(loss)):
            best, state = evaluation, trainer.network.state()
        idle = idle + 1 if gain < settings.min_gain else 0
        if idle == 2:
            ended = "stagnated"
            break
    assert best is not None and state is not None
    trainer.network.restore(state)
    return replace(joined(sessions), ended=ended), best
