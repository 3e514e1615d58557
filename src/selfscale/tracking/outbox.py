"""Records on their way to MLflow: on disk first, so that none is lost or waited for.

    .selfscale/outbox/1795421910123456789-KEY/000001          an entry
                                              000001-files/   the files that belong to it
                                              lock            held by the process that writes or delivers

A folder holds what one process records of one run. Folders are delivered in the order of their
names, which begin with the time; entries in the order of their numbers.
"""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from filelock import FileLock, Timeout

from selfscale.errors import UserError
from selfscale.files import write_bytes
from selfscale.paths import STATE

OUTBOX = STATE / "outbox"
FIRST = "000001"  # what opens the run: it stays until the last entry is delivered


class Entry(NamedTuple):
    """A call of a method of a tracked run, or, as the first, its kind; `at` in seconds since 1970."""

    call: str
    arguments: dict[str, Any]
    at: float


class Journal:
    """What is recorded of one run, in order, until it is delivered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / "lock", thread_local=False)
        self._number = max((int(path.name) for path in self.entries()), default=0)

    @classmethod
    def new(cls, root: Path, key: str) -> Self:
        """One of this process: others leave it alone as long as this process lives."""
        name = f"{time.time_ns()}-{key}"
        # Locked before it can be seen: whoever sees it free takes its writer for dead.
        hidden = root / OUTBOX / f".{name}"
        hidden.mkdir(parents=True)
        lock = FileLock(hidden / "lock", thread_local=False)
        lock.acquire()
        journal = cls(hidden.rename(hidden.with_name(name)))
        journal._lock = lock
        return journal

    def append(self, call: str, files: Sequence[Path] = (), **arguments: Any) -> None:
        """Write an entry, whole or not at all, with copies of the files."""
        name = f"{self._number + 1:06}"
        for file in files:
            attached = self.folder / f"{name}-files"
            attached.mkdir(exist_ok=True)
            shutil.copyfile(file, attached / file.name)
        # Pickled: the records are classes of this package, and nobody else reads or writes them.
        write_bytes(self.folder / name, pickle.dumps(Entry(call, arguments, time.time())))
        self._number += 1

    def entries(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]" * len(FIRST)))

    def waiting(self) -> list[Path]:
        """The entries that are not delivered yet, but for the first one."""
        return [path for path in self.entries() if path.name != FIRST]

    def read(self, path: Path) -> tuple[Entry, list[Path]]:
        """An entry and its files; raises UserError if another version of this package wrote it."""
        try:
            entry: Entry = pickle.loads(path.read_bytes())
        except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, TypeError) as error:
            raise UserError(f"{path}: cannot be read by this version; delete {self.folder}") from error
        return entry, sorted((self.folder / f"{path.name}-files").glob("*"))

    def remove(self, path: Path) -> None:
        """Forget an entry that was delivered."""
        path.unlink()
        shutil.rmtree(self.folder / f"{path.name}-files", ignore_errors=True)

    def delete(self) -> None:
        """Forget all of it; cut off in the middle, nothing is left that could open the run again."""
        (self.folder / FIRST).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Leave it to other processes."""
        self._lock.release()


def folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / OUTBOX).glob("*") if not path.name.startswith("."))


def abandoned(root: Path) -> Iterator[Journal]:
    """The journals of processes that ended, oldest first; each is this process's own in its turn."""
    for folder in folders(root):
        journal = Journal(folder)
        try:
            journal._lock.acquire(timeout=0)
        except (Timeout, OSError):  # somebody is at it, or was faster and has deleted it
            continue
        try:
            if (folder / FIRST).exists():
                yield journal
            else:
                journal.delete()
        finally:
            journal.release()


def count(root: Path) -> int:
    """How many entries wait in all journals."""
    return sum(len(Journal(folder).waiting()) for folder in folders(root))
