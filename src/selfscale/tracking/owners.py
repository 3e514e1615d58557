"""Which MLflow runs belong to a living process: each run is locked by the one that writes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from selfscale.errors import UserError
from selfscale.paths import STATE
from selfscale.tracking.store import Client, store_folder

ROOT_RUN = "minimization"  # tag of the runs below a minimization's: the id of its run
ALL_RUNS = 50_000  # the most that MLflow hands out at once
OWN_SECONDS = 5.0


def lock_path(client: Client, run_id: str) -> Path:
    """Beside a local store; for a server, where this checkout keeps its state."""
    folder = store_folder(client)
    return (folder / "locks" if folder else STATE / "runs") / f"{run_id}.lock"


def own(client: Client, run_id: str) -> BaseFileLock:
    """Lock a run as long as this process lives; raises UserError if another living one has it."""
    path = lock_path(client, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=OWN_SECONDS)
    except Timeout as error:
        raise UserError(
            f"MLflow run {run_id}: another process is writing it; wait until it has ended"
        ) from error
    return lock


def give_up(lock: BaseFileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def end_stale_runs(client: Client, experiment_ids: Sequence[str] | None = None) -> list[str]:
    """End as KILLED what processes left RUNNING that no longer live; returns those runs' ids.

    On a server, runs that were not started in this checkout are left alone.
    """
    ids = experiment_ids or [found.experiment_id for found in client.search_experiments()]
    running = defaultdict(list)
    for run in client.search_runs(ids, "attributes.status = 'RUNNING'", max_results=ALL_RUNS):
        if "kind" in run.data.tags:
            running[run.data.tags.get(ROOT_RUN, run.info.run_id)].append(run.info.run_id)
    ended: list[str] = []
    for owner, run_ids in running.items():
        path = lock_path(client, owner)
        if store_folder(client) is None and not path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        stale = [run_id for run_id in run_ids if client.get_run(run_id).info.status == "RUNNING"]
        for run_id in stale:
            client.set_terminated(run_id, "KILLED")
        give_up(lock)
        ended += stale
    return ended
