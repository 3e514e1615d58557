"""TensorFlow without the lines that it prints as it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


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
    with silent_stderr():
        import tensorflow

        tensorflow.config.list_physical_devices()  # else it looks for GPUs, and complains, later
    # Every network without a layer is traced anew, which TensorFlow takes for a mistake.
    tensorflow.get_logger().setLevel("ERROR")


@cache
def use_float16() -> None:
    """Once, when devices are set: targets are float16, of which TensorFlow complains on some processors."""
    import tensorflow

    with silent_stderr():
        tensorflow.function(tensorflow.zeros_like)(tensorflow.zeros(1, "float16"))
