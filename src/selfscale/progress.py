"""How far a job is: told as each session begins and is evaluated, and said in words.

The library only tells a listener; the lines here, or a display, show it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from selfscale.errors import one_line

EVERY = 300.0  # seconds between two lines of a job

log = logging.getLogger(__name__)


class Moment(NamedTuple):
    """How far a job is."""

    job: str = ""
    decision: int | None = None  # number of what is tried; None: the job decides nothing
    tried: str = ""  # what that is, in words
    step: int = 0  # of the present session
    steps: int = 0  # of it at most
    score: float | None = None  # loss at the last evaluation; None before the first
    limit: float | None = None  # score to stay within
    filters: tuple[int, ...] = ()  # of each hidden layer, in the network accepted last
    done: int = 0  # training steps of the job
    most: int | None = None  # training steps of it at most; None: not known
    exact: bool = False  # whether it takes no fewer than `most`
    seconds_left: float | None = None  # by the pace so far; None: not known
    over: bool = False  # whether the job has ended


Listener: TypeAlias = Callable[[Moment], None]


def nobody(moment: Moment) -> None:
    """Show nothing."""


class Pace:
    """Pace of a job: its steps, and all that came between them, since the first call.

    What a former process did counts as done, but not for the pace.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def seconds_left(self, done: int, most: int | None) -> float | None:
        """Estimate the seconds left; None while nothing was done, and where no limit holds."""
        now = self._clock()
        began, before = self._first = self._first or (now, done)
        if most is None or not before < done <= most:
            return None
        return (most - done) * (now - began) / (done - before)


class Progress:
    """Tell a listener how far a job is; each part of the library adds what it knows."""

    def __init__(
        self, listener: Listener = nobody, moment: Moment | None = None, pace: Pace | None = None
    ) -> None:
        self._listener, self._moment, self._pace = listener, moment or Moment(), pace or Pace()

    def job(self, name: str, **known: Any) -> Progress:
        """Return the progress of another job, which begins now; `known` are fields of `Moment`."""
        return Progress(self._listener, Moment(name, **known))

    def of(self, **known: Any) -> Progress:
        """Return the progress of the same job, of which more is known."""
        return Progress(self._listener, self._moment._replace(**known), self._pace)

    def after(self, steps: int) -> Progress:
        """Return the progress of the same job, so many steps later."""
        return self.of(done=self._moment.done + steps)

    def begin(self, steps: int) -> None:
        """Tell that a session of at most so many steps begins."""
        self._moment = self._moment._replace(steps=steps)
        self._listener(self.now())

    def evaluated(self, step: int, score: float) -> None:
        """Tell the loss after a step of the session."""
        done = self._moment.done + step
        self._listener(self.of(step=step, score=score, done=done).now())

    def end(self) -> None:
        """Tell that the job has ended, with a result or with a problem."""
        self._listener(self._moment._replace(over=True))

    def now(self) -> Moment:
        seconds = self._pace.seconds_left(self._moment.done, self._moment.most)
        return self._moment._replace(seconds_left=seconds)


SILENT = Progress()


def in_words(moment: Moment) -> str:
    """Return one line, the most important first: a narrow terminal cuts the end off."""
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
    """Return `at most 4 min left`, since a limit need not be reached; empty if nothing is known."""
    if moment.seconds_left is None:
        return ""
    return f"{'about' if moment.exact else 'at most'} {rounded(moment.seconds_left)} left"


def rounded(seconds: float) -> str:
    """Return seconds, from two minutes on minutes, from two hours on hours; rounded up."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds > 2 * length:
            return f"{int(-(-seconds // length))} {unit}"
    return f"{int(-(-seconds // 1))} s"


class Lines:
    """Log a line of a job now and then, the first one after five minutes; a listener."""

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


def on_terminal() -> bool:
    """Return whether stderr can show a display; a log file, a pipe or a dumb terminal gets lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class OneLine(logging.Formatter):
    """A message in one line, and behind it the traceback, if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(record.message)


class CurrentStderr(logging.Handler):
    """Write to the stderr of the moment: a live display takes its place, to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Log to stderr, unless this process has set up its own way."""
    handler = CurrentStderr()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
