"""How a process starts and ends: TensorFlow without the lines that it prints, and time to clean up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import TextIOWrapper
from types import FrameType
from typing import Any

from selfscale import keras_settings

overruled: list[str] = []  # the user's settings of Keras that commands go without
# What Keras imports for functions that no command calls: a quarter of the time that it takes itself.
UNUSED = {"matplotlib", "sklearn"}


def own_environment() -> None:
    """Set what results, pages and output must not depend on, whatever the user's own settings are.

    Before anything heavy is imported. Keras would read `keras.json`, in which another backend, order of axes
    or precision may be chosen for other work; a path below a file has none. So would Matplotlib.
    """
    overruled[:] = keras_settings.unfit()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    # TensorFlow reports its start-up in many lines; a user's own choice stands.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not os.environ.get("TERMINAL_WIDTH", "0").isdecimal():
        del os.environ["TERMINAL_WIDTH"]  # Typer's
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the terminal's encoding has not is shown escaped
            stream.reconfigure(errors="backslashreplace")


def clean_up_when_asked_to_end() -> None:
    """SIGTERM, and SIGHUP of a terminal that is closed, raise SystemExit; only the first request counts.

    A second one, or one after Ctrl-C, must not cut the cleaning short. Both come to a worker when its parent
    is asked to end: from the parent, from the pool, or from the terminal. A second Ctrl-C still interrupts,
    as it is a person's.
    """
    _ending.clear()
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, _exit)
    # A command started in the background ignores Ctrl-C, and goes on doing so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


_ending: set[int] = set()  # signals that came


def _exit(number: int, frame: FrameType | None) -> None:
    # Its handler stays: Python tells on stderr of a signal that comes while its handler is taken away.
    if not _ending:
        _ending.add(number)
        sys.exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _ending.add(number)
    signal.default_int_handler(number, frame)


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Also what C++ code writes there, past Python's `sys.stderr`."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def import_tensorflow() -> None:
    """Once: later, a live display may be on stderr."""
    modules: dict[str, Any] = sys.modules
    absent = UNUSED - modules.keys()
    modules.update(dict.fromkeys(absent))  # as if they were not installed, until it is done
    with silent_stderr():
        import tensorflow

        tensorflow.config.list_physical_devices()  # else it looks for GPUs, and complains, later
    for name in absent:
        del modules[name]
    # Every network without a layer is traced anew, which TensorFlow takes for a mistake.
    tensorflow.get_logger().setLevel("ERROR")


@cache
def use_float16() -> None:
    """Once, when devices are set: targets are float16, of which TensorFlow complains on some processors."""
    import tensorflow

    with silent_stderr():
        tensorflow.function(tensorflow.zeros_like)(tensorflow.zeros(1, "float16"))
