"""How far a job is, in words, and what is shown of it where there is no terminal: a line now and then."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

from selfscale.progress import Moment

EVERY = 300.0  # seconds between two lines of a job

log = logging.getLogger(__name__)


def on_terminal() -> bool:
    """Whether a display may move the cursor on stderr; a log file, a pipe or a dumb terminal gets lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def in_words(moment: Moment) -> str:
    """One line; what is most worth to know comes first, since a narrow terminal cuts the end off."""
    score = "" if moment.score is None else f"score {moment.score:.4g}"
    if moment.limit is not None:
        score = f"{score or 'score not known yet'} (limit {moment.limit:.4g})"
    parts = [
        time_left(moment),
        f"decision {moment.decision}" if moment.decision is not None else "",
        moment.tried,
        f"step {moment.step} of {moment.steps}" if moment.steps else "",
        score,
        f"filters {', '.join(map(str, moment.filters))}" if moment.filters else "",
    ]
    return f"{moment.job}: {', '.join(filter(None, parts)) or 'begins'}"


def time_left(moment: Moment) -> str:
    """`at most 4 min left`, since a limit need not be reached; empty where nothing is known."""
    if moment.seconds_left is None:
        return ""
    return f"{'about' if moment.exact else 'at most'} {rounded(moment.seconds_left)} left"


def rounded(seconds: float) -> str:
    """Seconds, from two minutes on minutes, from two hours on hours; rounded up."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds > 2 * length:
            return f"{int(-(-seconds // length))} {unit}"
    return f"{int(-(-seconds // 1))} s"


class Lines:
    """A listener that logs a line of a job now and then, the first one after five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def __call__(self, moment: Moment) -> None:
        now = self._clock()
        if moment.over:
            self._last.pop(moment.job, None)
        elif now - self._last.setdefault(moment.job, now) >= EVERY:
            self._last[moment.job] = now
            log.info("%s", in_words(moment))


class CurrentStderr(logging.Handler):
    """Writes to stderr as it is when a line comes: a live display takes its place, to print above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """What is logged goes to stderr, unless this process already has its own way."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[CurrentStderr()])
