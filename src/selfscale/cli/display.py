"""The live display on a terminal: a line for each job that runs, gone when all is done.

Worker processes send what they report and log to the process that has the terminal, since two of them
cannot share it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from selfscale.progress import Lines, Listener, Moment, in_words, on_terminal

REFRESHES = 2  # per second
PAUSE = 0.1  # seconds between two looks for what workers sent


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


# -- what worker processes report ----------------------------------------------------------------

_listener: Listener = Lines()  # of a worker process


def tell(moment: Moment) -> None:
    """The listener of a worker process; a function of a module, so that it can be sent there."""
    _listener(moment)


@contextmanager
def workers(listener: Listener) -> Iterator[Callable[[], None] | None]:
    """What each worker process is to call first, so that `listener` hears it, and its log is shown.

    None without a terminal: then each logs by itself.
    """
    if not on_terminal():
        yield None
        return
    queue: SimpleQueue[Moment | str] = get_context("spawn").SimpleQueue()
    over = threading.Event()
    thread = threading.Thread(target=_receive, args=(queue, listener, over), daemon=True)
    thread.start()
    try:
        yield partial(_connect, queue)
    finally:
        over.set()
        thread.join(timeout=1)  # a worker that was killed may have left half a message


def _receive(queue: SimpleQueue[Moment | str], listener: Listener, over: threading.Event) -> None:
    while True:
        if queue.empty():
            if over.wait(PAUSE) and queue.empty():
                return
            continue
        found = queue.get()
        if isinstance(found, str):
            print(found, file=sys.stderr)
        else:
            listener(found)


def _connect(queue: SimpleQueue[Moment | str]) -> None:
    global _listener
    _listener = queue.put
    handler = _Sender(queue)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)


class _Sender(logging.Handler):
    def __init__(self, queue: SimpleQueue[Moment | str]) -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(self.format(record))
