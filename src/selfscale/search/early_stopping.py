"""Early stopping of hopeless trials, judged by how far the losses of earlier sessions still fell."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from selfscale.nn.trainer import Plan

FULL_SESSIONS = 4  # to have seen before any is stopped


def hopeless_scores(curves: Sequence[Sequence[float]], plan: Plan, limit: float) -> dict[int, float]:
    """Return the loss by step of a session, above which it will not end within `limit`.

    Of all earlier sessions, the loss at an evaluation fell at most to the share r of it by the end of the
    first cycle. A trial is hopeless if it would have to fall twice as far: if its loss times the
    square of r is above `limit`. `benchmarks/early_stop.py` measures how many trials that changes.

    Args:
        curves: Losses at the evaluations of earlier sessions, of any length in steps: it is the decay
            of the learning rate that lowers a loss.
        plan: Plan of the session.
        limit: Loss that the tolerance allows.

    Returns:
        Empty as long as fewer than four sessions came to the end of a cycle.
    """
    pauses = plan.pauses
    firsts = [curve[: len(pauses)] for curve in curves if len(curve) >= len(pauses)]
    full = [curve for curve in firsts if all(0 < loss < inf for loss in curve)]  # a NaN is not
    if len(full) < FULL_SESSIONS:
        return {}
    shares = [min(curve[-1] / curve[i] for curve in full) for i in range(len(pauses) - 1)]
    return {pause: limit / min(share, 1.0) ** 2 for pause, share in zip(pauses, shares, strict=False)}
