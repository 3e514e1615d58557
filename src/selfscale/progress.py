"""What the core reports while it trains: how far a job is, as each session begins and is evaluated.

Whoever wants to show it is a listener; the core knows none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias


class Moment(NamedTuple):
    """How far a job is.

    `job` names it; `decision` is the number of what is tried (None: it decides nothing), `tried` says
    what that is. `step` of at most `steps` are over in the present session; `score` is the one at the
    last evaluation (lower is better; None before the first), `limit` the one to stay within, if there
    is one. `filters` are those of each hidden layer in the network that was kept last. `done` are all
    training steps of the job, `most` those that it takes at most, if that is known, and `exact` says
    that it takes no fewer. `seconds_left` follows from these and the pace so far (None: not known).
    `over`: the job has ended.
    """

    job: str = ""
    decision: int | None = None
    tried: str = ""
    step: int = 0
    steps: int = 0
    score: float | None = None
    limit: float | None = None
    filters: tuple[int, ...] = ()
    done: int = 0
    most: int | None = None
    exact: bool = False
    seconds_left: float | None = None
    over: bool = False


Listener: TypeAlias = Callable[[Moment], None]


def nobody(moment: Moment) -> None:
    """The listener that shows nothing."""


class Pace:
    """How fast a job is: all its steps, and all that came between them, since the first look.

    What a former process did before counts as done, and not as fast.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def seconds_left(self, done: int, most: int | None) -> float | None:
        """None as long as nothing was done, and where no limit was known, or it did not hold."""
        now = self._clock()
        began, before = self._first = self._first or (now, done)
        if most is None or not before < done <= most:
            return None
        return (most - done) * (now - began) / (done - before)


class Progress:
    """What a job tells its listener; each part of the core adds what it knows."""

    def __init__(
        self, listener: Listener = nobody, moment: Moment | None = None, pace: Pace | None = None
    ) -> None:
        self._listener, self._moment, self._pace = listener, moment or Moment(), pace or Pace()

    def job(self, name: str, **known: Any) -> Progress:
        """The same listener for another job, whose time begins now; `known` are fields of `Moment`."""
        return Progress(self._listener, Moment(name, **known))

    def of(self, **known: Any) -> Progress:
        """The same job, of which more is known."""
        return Progress(self._listener, self._moment._replace(**known), self._pace)

    def after(self, steps: int) -> Progress:
        """The same job, so many steps later."""
        return self.of(done=self._moment.done + steps)

    def begin(self, steps: int) -> None:
        """A session of at most so many steps begins."""
        self._moment = self._moment._replace(steps=steps)
        self._listener(self.now())

    def evaluated(self, step: int, score: float) -> None:
        """The score after a step of the session."""
        done = self._moment.done + step
        self._listener(self.of(step=step, score=score, done=done).now())

    def end(self) -> None:
        """The job has ended, with a result or with a problem."""
        self._listener(self._moment._replace(over=True))

    def now(self) -> Moment:
        seconds = self._pace.seconds_left(self._moment.done, self._moment.most)
        return self._moment._replace(seconds_left=seconds)


SILENT = Progress()
