"""When a trial is hopeless: judged by how far earlier sessions of the same length still came down."""

from __future__ import annotations

from collections.abc import Sequence

from selfscale.records import SessionRecord

# Full sessions to have seen before any is stopped, and the margin left for one that comes down
# further than all of them.
FULL_SESSIONS = 4
MARGIN = 0.9


def hopeless_scores(sessions: Sequence[SessionRecord], steps: int, limit: float) -> dict[int, float]:
    """The score at each step of a session beyond which it will not end within `limit`.

    A session's score comes down towards its end, as the learning rate decays: in the best of the
    `sessions` that came to the end of their first cycle of `steps` steps, from its score at a step
    to the share r of it. A trial whose score is s is hopeless if 0.9 r s is still above `limit`.
    Empty as long as fewer than four came that far.
    """
    full = [dict(session.scores) for session in sessions]
    full = [scores for scores in full if steps in scores]
    if len(full) < FULL_SESSIONS:
        return {}
    common = {step for step in set.intersection(*map(set, full)) if step < steps}
    shares = {step: min(scores[steps] / scores[step] for scores in full) for step in sorted(common)}
    return {step: limit / (MARGIN * share) for step, share in shares.items() if share > 0}
