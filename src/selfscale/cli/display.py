"""The live display on a terminal: a line on the job that runs, gone when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selfscale.progress import Lines, Moment, Progress, in_words, on_terminal

if TYPE_CHECKING:
    from rich.console import Group


@contextmanager
def display() -> Iterator[Progress]:
    """Show on stderr how far a job is; without a terminal, by a line now and then."""
    if not on_terminal():
        yield Progress(Lines())
        return
    from rich.console import Console  # takes a while to import
    from rich.live import Live

    shown, console = Shown(), Console(stderr=True, force_terminal=True)
    # Not stdout: what a command prints there is its result, which may go to a file.
    with Live(
        get_renderable=shown.render,
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,
    ):
        yield Progress(shown)


class Shown:
    """What is known of the job that runs; of several, as in `scale`, one follows the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[Moment, float] | None = None

    def __call__(self, moment: Moment) -> None:
        self._last = None if moment.over else (moment, self._clock())

    def render(self) -> Group:
        """One line; the seconds left go on falling while nothing is reported."""
        from rich.console import Group
        from rich.text import Text

        if self._last is None:
            return Group()
        moment, then = self._last
        if (left := moment.seconds_left) is not None:
            moment = moment._replace(seconds_left=max(0.0, left - (self._clock() - then)))
        return Group(Text(in_words(moment), overflow="fold"))
