"""The long first session of a network, before anything is removed (thesis 2.3.2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from selfscale.nn.losses import relative_change
from selfscale.nn.masking import MaskState
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Plan, Trainer, joined
from selfscale.progress import SILENT, Progress
from selfscale.records import SessionRecord


def first_session(
    trainer: Trainer, seed: int, attempt: int, progress: Progress = SILENT
) -> tuple[SessionRecord, Evaluation]:
    """Train in cycles of warm-up and cosine decay until the validation loss stagnates.

    The session has stagnated when a cycle lowers the best loss of the cycles before by less than
    `min_gain`, relative. It ends as `completed` when `max_cycles` are over before that. The network is
    left in the state after its best cycle.

    Args:
        trainer: Trainer of a fresh network; `trainer.settings.first` has the limits.
        seed: Seed of the run.
        attempt: How often this seed's network was restarted.
        progress: Listener.

    Returns:
        All cycles as one session, and the evaluation after the best one. If the first cycle fails,
        that cycle and its evaluation.
    """
    settings = trainer.settings.first
    progress = progress.of(most=settings.max_cycles * settings.steps, filters=trainer.network.filters_kept)
    plan = Plan(settings.steps, trainer.settings.evaluations)
    sessions: list[SessionRecord] = []
    best: Evaluation | None = None
    state: MaskState | None = None
    ended = "completed"
    for cycle in range(settings.max_cycles):
        rng = np.random.default_rng((seed, 0, attempt, cycle))
        told = progress.of(tried=f"cycle {cycle + 1}", done=cycle * settings.steps)
        session, evaluation = trainer.session(plan, rng, told)
        sessions.append(session)
        if best is None and session.ended != "completed":
            return session, evaluation
        # A later cycle that dies has gained nothing.
        score = evaluation.score(trainer.loss) if session.ended == "completed" else np.inf
        gain = 1.0 if best is None else -float(relative_change(score, best.score(trainer.loss)))
        if gain > 0:
            best, state = evaluation, trainer.network.state()
        if gain < settings.min_gain:
            ended = "stagnated"
            break
    assert best is not None and state is not None
    trainer.network.restore(state)
    return replace(joined(sessions), ended=ended), best
