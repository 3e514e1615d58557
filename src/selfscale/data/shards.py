"""Work on many files in pieces, by several processes; cut off, it goes on with what is not finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib.externals.loky import get_reusable_executor
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
    results = map(partial(_quietly, function), items) if workers == 1 else _map(function, items, workers)
    return progress(results, description, len(items))


def progress(results: Iterable[Result], description: str, total: int) -> Iterator[Result]:
    """Yield the same results, with a progress bar on stderr if that is a terminal."""
    shown = on_terminal()
    console = Console(stderr=True, force_terminal=shown)
    yield from track(results, description, total, console=console, transient=True, disable=not shown)


def _map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    run = joblib.delayed(partial(_in_worker, function, os.getpid()))
    pool = joblib.Parallel(workers, backend="loky", return_as="generator", batch_size=1)
    try:
        yield from pool(run(item) for item in items)
    except BrokenProcessPool as error:
        raise WorkerDied("workers: a worker process died, perhaps out of memory; use fewer") from error
    # Later ones may work in another folder, with other modules of the same names.
    get_reusable_executor().shutdown()


def _in_worker(function: Callable[[Item], Result], parent: int, item: Item) -> Result:
    _end_with(parent)
    return _quietly(function, item)


def _quietly(function: Callable[[Item], Result], item: Item) -> Result:
    """`function` of an item; what a user's operator prints does not come where a command answers."""
    with redirect_stdout(sys.stderr):
        return function(item)


@cache
def _end_with(parent: int) -> None:
    """End this worker when its parent was killed; else it would go on, and then wait for work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
