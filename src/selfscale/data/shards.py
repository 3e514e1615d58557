"""Work on many files in pieces, by several processes; cut off, it goes on with what is not finished."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
from rich.console import Console
from rich.progress import track

from selfscale import files
from selfscale.errors import UserError
from selfscale.progress import on_terminal

Item = TypeVar("Item")
Result = TypeVar("Result")

# Long enough that handing them out costs nothing, and so many that every process has some.
LONGEST, FEWEST = 64, 16


class WorkerDied(UserError):
    """A worker process was killed, perhaps because the memory was full."""


def parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Split the items into pieces of equal length; how many depends on nothing but their number."""
    length = max(1, min(LONGEST, len(items) // FEWEST))
    return [items[start : start + length] for start in range(0, len(items), length)]


@contextmanager
def kept(out: Path, inputs: Any) -> Iterator[Path]:
    """Yield a folder for the shards of what becomes `out`; it is deleted when the block ends or fails.

    It is in `.NAME.shards` beside `out`. It stays when this process or a worker is killed, and is
    handed out again for the same inputs (which have to be JSON) and the same code of this package's
    data; for others, it is deleted.
    """
    code = files.content(Path(__file__).parent, "*.py"), files.content(Path(files.__file__))
    digest = hashlib.sha256(json.dumps([code, inputs], sort_keys=True).encode()).hexdigest()[:16]
    every = out.with_name(f".{out.name}.shards")
    folder = every / digest
    if not folder.exists():
        shutil.rmtree(every, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield folder
    except WorkerDied:
        raise
    except Exception:
        shutil.rmtree(every, ignore_errors=True)
        raise
    shutil.rmtree(every)


def ordered_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str
) -> Iterator[Result]:
    """Apply a function to items in worker processes, with a progress bar on stderr if that is a terminal.

    Args:
        function: as the items and results, it has to be picklable.
        workers: by default the number of processors that this process may use; 1: this process.

    Yields:
        The results in the order of the items, whatever the number of workers.

    Raises:
        UserError: there are less than one worker, or a worker died.
    """
    workers = joblib.cpu_count() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers: at least 1 is needed, not {workers}")
    if workers == 1:
        return progress(map(partial(_quietly, function), items), description, len(items))
    return _in_workers(function, items, workers, description)


def progress(results: Iterable[Result], description: str, total: int) -> Iterator[Result]:
    """Yield the same results, with a progress bar on stderr if that is a terminal."""
    shown = on_terminal()
    console = Console(stderr=True, force_terminal=shown)
    yield from track(results, description, total, console=console, transient=True, disable=not shown)


def _in_workers(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> Iterator[Result]:
    # A copy of this process starts at once: what it has imported takes as long as the work on some hundred
    # photographs. But it has no other threads: what these held, it would wait for without end.
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    way = "fork" if alone and sys.platform == "linux" else "spawn"
    context, others = multiprocessing.get_context(way), multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _begin, (os.getpid(),))
    try:
        results = pool.map(partial(_quietly, function), items)  # before the display, which has a thread
        yield from progress(results, description, len(items))
    except BrokenProcessPool as error:
        raise WorkerDied("workers: a worker process died, perhaps out of memory; use fewer") from error
    finally:  # all is done, or nobody wants the rest
        for worker in set(multiprocessing.active_children()) - set(others):
            worker.kill()
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """Make a worker end with its parent, by nothing that is the parent's own."""
    _end_with(parent)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's matter, which ends its workers


def _quietly(function: Callable[[Item], Result], item: Item) -> Result:
    """`function` of an item; what a user's operator prints does not come where a command answers."""
    with redirect_stdout(sys.stderr):
        return function(item)


def _end_with(parent: int) -> None:
    """End this worker when its parent was killed; else it would go on, and then wait for work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
