"""When a trial is hopeless: judged by how far the scores of earlier sessions still came down."""

from __future__ import annotations

from collections.abc import Sequence

from selfscale.nn.trainer import Plan

FULL_SESSIONS = 4  # to have seen before any is stopped


def hopeless_scores(curves: Sequence[Sequence[float]], plan: Plan, limit: float) -> dict[int, float]:
    """The score at each step of a session beyond which it will not end within `limit`.

    `curves` are the scores at the evaluations of earlier sessions, of any length in steps, since it
    is the decay of the learning rate that brings a score down. In the session that came down
    furthest, its score at an evaluation fell to the share r of it by the end of the first cycle. A
    trial is hopeless if it would have to come down twice as far: if its score times the square of r is
    above `limit`. Empty as long as fewer than four sessions came to the end of a cycle.

    `benchmarks/early_stop.py` measures how many trials this rule decides otherwise.
    """
    pauses = plan.pauses
    full = [curve[: len(pauses)] for curve in curves if len(curve) >= len(pauses) and min(curve) > 0]
    if len(full) < FULL_SESSIONS:
        return {}
    shares = [min(curve[-1] / curve[i] for curve in full) for i in range(len(pauses) - 1)]
    return {pause: limit / min(share, 1.0) ** 2 for pause, share in zip(pauses, shares, strict=False)}
