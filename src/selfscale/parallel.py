"""A function over many items, in several processes, with little memory and visible progress."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from typing import TypeVar

import joblib
import psutil
from rich.console import Console
from rich.progress import track

from selfscale.config import Execution
from selfscale.errors import UserError
from selfscale.progress import on_terminal

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 4  # items a worker: enough that none waits, few enough that results do not pile up
WORKER_BYTES = 1.5 * 2**30  # what a process takes that trains, with TensorFlow


class WorkerDied(UserError):
    """A worker process was killed, perhaps because the memory was full."""


def default_workers(execution: Execution, jobs: int, trials: int = 1) -> int:
    """How many processes train side by side: as many as set, or as fit cores and memory; never idle ones.

    `trials` that each of them makes at once take `execution.threads` each.
    """
    cores = joblib.cpu_count() // (execution.threads * trials)
    fitting = min(cores, psutil.virtual_memory().available // WORKER_BYTES)
    return max(1, min(execution.workers or int(fitting), jobs))


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """`function` of each item, in the order of the items, whatever the number of processes.

    `workers` is by default the number of processors that this process may use; one worker is this
    process itself; each other calls `prepare` first. All of these have to be picklable.
    """
    workers = joblib.cpu_count() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers: at least 1 is needed, not {workers}")
    return map(function, items) if workers == 1 else _map(function, items, workers, prepare)


def _map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prepare: Callable[[], None] | None,
) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    # Spawned, not forked: the parent may hold threads, TensorFlow's for one, that no fork survives.
    with ProcessPoolExecutor(workers, get_context("spawn"), partial(_begin, prepare)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(_until_asked_to_end, function, item))
                if len(pending) >= IN_FLIGHT * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerDied("workers: a worker process died, perhaps out of memory; use fewer") from error
        except (KeyboardInterrupt, SystemExit):
            for process in active_children():  # else it would be waited for them, which can take minutes
                process.terminate()
            raise
        finally:
            for future in pending:
                future.cancel()


def _until_asked_to_end(function: Callable[[Item], Result], item: Item) -> Result:
    """`function` of an item; what asks this worker to end does so, once the function has cleaned up.

    The pool would take the exception for an outcome, and give the worker its next item.
    """
    try:
        return function(item)
    except (KeyboardInterrupt, SystemExit):
        os._exit(1)


def _begin(prepare: Callable[[], None] | None) -> None:
    _end_with_parent()
    sys.stdout = sys.stderr  # where a command answers is no place for what a user's operator prints
    if prepare:
        prepare()


def _end_with_parent() -> None:
    """End this worker when its parent was killed; else it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def progress(results: Iterable[Result], description: str, total: int) -> Iterator[Result]:
    """The same results with a progress bar on stderr, if that is a terminal."""
    shown = on_terminal()
    console = Console(stderr=True, force_terminal=shown)
    yield from track(results, description, total=total, console=console, transient=True, disable=not shown)
