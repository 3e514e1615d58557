"""MLflow as a picture of the records on disk: brought up to them as often as wanted, everything there once.

A run is found by the tag `key`, its execution's, or `content`, the digest of a finished record: so what
`dvc pull` brought is shown, too, and once. Training never waits for the store: a thread brings it up
after each decision, and what fails waits for the next call.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from selfscale.errors import UserError
from selfscale.paths import MINIMIZED, REPORTS, STATE, Baseline, Job, Training, store_root
from selfscale.tracking import runs
from selfscale.tracking.records import Record, read
from selfscale.tracking.runs import StoredRun

if TYPE_CHECKING:  # MLflow takes seconds to import: the functions do, in the thread where there is one
    from mlflow.entities import Run

    from selfscale.tracking.store import Client

LOCK_SECONDS = 30.0  # how long to wait for another process that brings up a record
PATIENCE = 10.0  # how long the end of a job waits for a server

log = logging.getLogger(__name__)


def sync_record(
    client: Client, record: Path, clock: Path | None, *, seen: dict[str, StoredRun] | None = None
) -> str:
    """Bring the run of a record up to it; called again, it changes nothing.

    Args:
        record: Its folder, or an ablation's JSON file.
        clock: The file of its clock, if it may have one.
        seen: What the same process knows of earlier calls, by which nothing is looked up twice.

    Returns:
        The run's id; empty if there is nothing to show, or while another process keeps at it.

    Raises:
        StoreError: the store fails.
        UserError: the record is damaged.
    """
    try:
        run = _sync(client, record, clock, {} if seen is None else seen)
    except Timeout:
        return ""
    return run.id if run else ""


def _sync(
    client: Client, path: Path, clock: Path | None, seen: dict[str, StoredRun], lock: Path | None = None
) -> StoredRun | None:
    """The same; without its `lock` for the job that writes it, with it for others while nobody has that."""
    from selfscale.tracking.store import experiment, store_errors, store_folder

    folder = store_folder(client)
    state = (folder.parent if folder else store_root()) / STATE
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(state / "sync.lock", timeout=LOCK_SECONDS), store_errors():
        if (lock and held(lock)) or not (record := read(path, clock, writing=not lock)):
            return None
        if lock and record.status == "RUNNING":  # but nobody is at it
            record.status = "KILLED"
        run = seen.get(record.key or record.content)
        if run is None:
            experiment_id = experiment(client, record.tags["task"])
            if found := find(client, experiment_id, record):
                run = StoredRun(client, found, record, new=False)
            else:
                run = runs.create(client, experiment_id, record)
            seen[record.key or record.content] = run
        run.bring_up(record)
        return run


def find(client: Client, experiment_id: str, record: Record) -> Run | None:
    """The run of a record: of its execution, else the newest of its content."""
    for tag, value in (("key", record.key), ("content", record.content)):
        for run in client.search_runs([experiment_id], f"tags.{tag} = '{value}'") if value else ():
            if record.tags.items() <= run.data.tags.items():
                return run
    return None


def held(lock: Path) -> bool:
    """Whether a process has it."""
    try:
        if lock.exists():
            FileLock(lock).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False


def sync_project(root: Path) -> int:
    """Bring up all records of a project but those that processes are at, which bring them up themselves.

    What a killed process left in progress ends as KILLED.

    Returns:
        How many runs were created or completed.

    Raises:
        StoreError: the store fails.
    """
    from selfscale.tracking.store import open_store

    return _sync_all(open_store(root), [*finished(root), *in_progress(root)])


def end_killed(client: Client, root: Path) -> None:
    """Show as KILLED what killed processes left in progress: nobody may ever take it up again."""
    _sync_all(client, list(in_progress(root)))


def _sync_all(client: Client, records: list[tuple[Path, Path, Path]]) -> int:
    from selfscale.tracking.store import StoreError

    changed = 0
    for record, clock, lock in records:
        try:
            run = _sync(client, record, clock, {}, lock)
            changed += run is not None and run.changed
        except StoreError:
            raise
        except Timeout:
            continue
        except (UserError, LookupError, TypeError, ValueError) as error:  # damaged, or of another version
            log.warning("%s: is not shown by MLflow: %s", record, error)
    return changed


def finished(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Each record that a stage of the project left, its clock and its lock."""
    state = root / STATE
    for work in (Training, Job, Baseline):
        for about in sorted((root / work.folder).glob("*/run.json")):
            name = about.parent.name
            yield about.parent, state / f"clocks/{work.kind}-{name}.json", state / f"{work.verb}-{name}.lock"
    for about in sorted((root / MINIMIZED).glob("*/start/run.json")):  # the training of a start of its own
        name = about.parent.parent.name
        yield about.parent, state / f"clocks/start-{name}.json", state / f"minimize-{name}.lock"
    for report in sorted((root / REPORTS).glob("worth-*.json")):
        yield report, state / f"clocks/{report.name}", state / f"{report.stem}.lock"


def in_progress(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Each state folder of a minimization, NAME-HASH, its clock and its lock."""
    for about in sorted((root / STATE).glob("minimizations/*/run.json")):
        name = about.parent.name.rpartition("-")[0]
        yield about.parent, about.with_name("clock.json"), root / STATE / f"minimize-{name}.lock"


class Syncer(threading.Thread):
    """Brings up one record beside the job that writes it, which holds the record's lock.

    A context manager: leaving it brings up the last. The clock says by then how the job ended.
    """

    def __init__(self, root: Path, record: Path, clock: Path) -> None:
        super().__init__(daemon=True)  # a server that does not answer must not keep the process
        self.root, self._record = root, (record, clock)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._client: Client | None = None
        self._seen: dict[str, StoredRun] = {}
        self._first, self._failing, self._behind = True, False, True

    def wake(self) -> None:
        """Bring it up to what is on disk now."""
        self._wake.set()

    def move(self, record: Path, clock: Path) -> None:
        """The record was finished: it lies in another folder now, its clock with the same key."""
        self._record = (record, clock)

    def __enter__(self) -> Self:
        self.start()
        self.wake()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from selfscale.tracking.store import VARIABLE, is_remote

        self._closing.set()
        self.wake()
        self.join(PATIENCE if is_remote(os.environ.get(VARIABLE, "")) else None)
        if self._behind or self.is_alive():
            log.warning(
                "MLflow does not show all of %s; `selfscale sync` brings up the rest", self._record[0]
            )

    def run(self) -> None:
        last = False
        while not last:
            self._wake.wait()
            self._wake.clear()
            last, self._behind = self._closing.is_set(), True
            self._sync()

    def _sync(self) -> None:
        try:
            from selfscale.tracking.store import open_store

            client = self._client = self._client or open_store(self.root)
            record = self._record
            self._behind = not sync_record(client, *record, seen=self._seen) and record[0].exists()
            self._failing = False
            if self._first:
                self._first = False
                end_killed(client, self.root)
        except Exception as error:  # whatever it is, training goes on
            if not self._failing:
                log.warning("%s; MLflow waits, training goes on", str(error).strip().partition("\n")[0])
            self._failing, self._client = True, None
            self._seen.clear()
