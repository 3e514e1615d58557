"""How a process ends that is asked to: it cleans up, so that locks, files and runs end as they should."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def clean_up_when_asked_to_end() -> None:
    """SIGTERM raises SystemExit, once: a second one, or one after Ctrl-C, must not cut the cleaning short.

    Both come to a worker when its parent is asked to end: from the parent, from the pool, or from the
    terminal. A second Ctrl-C still interrupts, as it is a person's.
    """
    signal.signal(signal.SIGTERM, _exit)
    # A command started in the background ignores Ctrl-C, and goes on doing so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _exit(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.default_int_handler(number, frame)
