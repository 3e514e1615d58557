"""Results of work on many files, in pieces on disk: cut off, the work goes on with what is not finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selfscale.parallel import WorkerDied

Item = TypeVar("Item")

# Long enough that handing them out costs nothing, and so many that every process has some.
LONGEST, FEWEST = 64, 16


def parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """The items in pieces of equal length; how many depends on nothing but their number."""
    length = max(1, min(LONGEST, len(items) // FEWEST))
    return [items[start : start + length] for start in range(0, len(items), length)]


@contextmanager
def kept(out: Path, inputs: Any) -> Iterator[Path]:
    """A folder for the shards of what becomes `out`; deleted when the block ends or fails.

    It is in `.NAME.shards` beside `out`. It stays when this process or a worker is killed, and is
    handed out again for the same inputs (which have to be JSON); for others, it is deleted.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
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
