"""When a trial is hopeless: judged by how far the scores of earlier sessions still came down."""

from __future__ import annotations

from collections.abc import Sequence

from selfscale.training import Plan

# Full sessions to have seen before any is stopped, and the margin left for one that comes down
# further than all of them.
FULL_SESSIONS = 4
MARGIN = 0.9


def hopeless_scores(curves: Sequence[Sequence[float]], plan: Plan, limit: float) -> dict[int, float]:
    """The score at each step of a session beyond which it will not end within `limit`.

    `curves` are the scores at the evaluations of earlier sessions, of any length in steps, since it
    is the decay of the learning rate that brings a score down. In the session that came down
    furthest, its score at an evaluation fell to the share r of it by the end of the first cycle. A
    trial with a score s is hopeless if 0.9 r s is still above `limit`. Empty as long as fewer
    than four sessions came to the end of a cycle.
    """
    pauses = plan.pauses
    full = [curve[: len(pauses)] for curve in curves if len(curve) >= len(pauses) and min(curve) > 0]
    if len(full) < FULL_SESSIONS:
        return {}
    shares = [min(curve[-1] / curve[i] for curve in full) for i in range(len(pauses) - 1)]
    return {pause: limit / (MARGIN * share) for pause, share in zip(pauses, shares, strict=False)}
