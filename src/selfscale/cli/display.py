"""The live display on a terminal: a line for each job that runs, gone when all is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from selfscale.progress import Lines, Listener, Moment, in_words, on_terminal

REFRESHES = 2  # per second


@contextmanager
def display(total: int = 1) -> Iterator[Listener]:
    """The listener that shows `total` jobs as they go; without a terminal, one that logs lines."""
    if not on_terminal():
        yield Lines()
        return
    jobs = Jobs(total)
    console = Console(stderr=True, force_terminal=True)
    # Not stdout: what a command prints there is its result, which may go to a file.
    with Live(
        console=console,
        get_renderable=jobs.render,
        refresh_per_second=REFRESHES,
        transient=True,
        redirect_stdout=False,
    ):
        yield jobs


class Jobs:
    """What is known of each job that runs."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._running: dict[str, tuple[Moment, float]] = {}
        self._over: set[str] = set()
        self._lock = threading.Lock()  # jobs report, and the display looks, in threads of their own

    def __call__(self, moment: Moment) -> None:
        with self._lock:
            if moment.over:
                self._over.add(moment.job)
                self._running.pop(moment.job, None)
            else:
                # Of a single one, `scale` for example, the stages follow each other.
                others = self._running if self._total > 1 else {}
                self._running = {**others, moment.job: (moment, self._clock())}

    def render(self) -> Group:
        """A line for each job, cut to the terminal's width; a single job may take several."""
        now, several = self._clock(), self._total > 1
        with self._lock:
            lines = [in_words(since(moment, now - then)) for moment, then in self._running.values()]
            if several:
                lines.insert(0, f"{len(self._over)} of {self._total} ended")
        overflow: Any = "ellipsis" if several else "fold"
        return Group(*(Text(line, no_wrap=several, overflow=overflow) for line in lines))


def since(moment: Moment, seconds: float) -> Moment:
    """The moment so many seconds later, in which nothing was reported."""
    if moment.seconds_left is None:
        return moment
    return moment._replace(seconds_left=max(0.0, moment.seconds_left - seconds))
