"""The live display on a terminal: a line on the job that runs, gone when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from selfscale.progress import Lines, Listener, Moment, in_words, on_terminal

REFRESHES = 2  # per second


@contextmanager
def display() -> Iterator[Listener]:
    """The listener that shows a job as it goes; without a terminal, one that logs lines."""
    if not on_terminal():
        yield Lines()
        return
    shown = Shown()
    console = Console(stderr=True, force_terminal=True)
    # Not stdout: what a command prints there is its result, which may go to a file.
    with Live(
        console=console,
        get_renderable=shown.render,
        refresh_per_second=REFRESHES,
        transient=True,
        redirect_stdout=False,
    ):
        yield shown


class Shown:
    """What is known of the job that runs; of several, as in `scale`, one follows the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[Moment, float] | None = None

    def __call__(self, moment: Moment) -> None:
        self._last = None if moment.over else (moment, self._clock())

    def render(self) -> Group:
        if (last := self._last) is None:
            return Group()
        moment, then = last
        return Group(Text(in_words(since(moment, self._clock() - then)), overflow="fold"))


def since(moment: Moment, seconds: float) -> Moment:
    """The moment so many seconds later, in which nothing was reported."""
    if moment.seconds_left is None:
        return moment
    return moment._replace(seconds_left=max(0.0, moment.seconds_left - seconds))
