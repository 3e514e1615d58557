"""Delivers what is recorded to MLflow, beside the training: in order, once, as the store answers.

Training never waits for the store. What a slow or absent server did not take before the process
ended stays in the outbox, and the next command that records, or `selfscale deliver`, sends it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from selfscale.tracking import outbox
from selfscale.tracking.ablation_runs import WorthRun
from selfscale.tracking.outbox import FIRST, Journal
from selfscale.tracking.runs import BaselineRun, MinimizationRun, TrackedRun, TrainingRun
from selfscale.tracking.store import FAILURES, VARIABLE, Client, first_line, is_remote, open_store
from selfscale.tracking.system_metrics import Monitor, Sample

KINDS: dict[str, type[TrackedRun]] = {
    "training": TrainingRun,
    "minimization": MinimizationRun,
    "baseline": BaselineRun,
    "worth": WorthRun,
}
# How long the end of a run waits for a server to take what is left.
PATIENCE = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

log = logging.getLogger(__name__)


class Recorder:
    """Records one run; as a context manager it ends as KILLED or FAILED with the block.

    `kind` is one of KINDS, `arguments` are its class's. A run with the same `key` is taken up again.
    """

    def __init__(self, root: Path, kind: str, *, key: str | None = None, **arguments: Any) -> None:
        self.key = key or uuid4().hex
        self._ended = False
        # Wrong settings and damaged files are found before the work; a server may come back during it.
        client = None if is_remote(os.environ.get(VARIABLE, "")) else open_store(root)
        self._journal = Journal.new(root, self.key)
        self._journal.append(kind, key=self.key, **arguments)
        self._courier = Courier(root, self._journal, client)
        self._courier.start()
        self._monitor = Monitor()
        self._monitor.start()

    def system(self, seconds: float) -> list[Sample]:
        """What the machine did in so many seconds until now, to be recorded with a session."""
        return self._monitor.last(seconds)

    def record(self, call: str, files: Sequence[Path] = (), **arguments: Any) -> None:
        """A call of that method of the run, which `finish`, `fail` and `kill` end."""
        self._journal.append(call, files, **arguments)
        self._ended |= call in ("finish", "fail", "kill")
        self._courier.wake.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.record("kill")
            else:
                self.record("fail", reason=repr(error) if error else "ended without a result")
        self._monitor.close()
        self._courier.close()


class Courier(threading.Thread):
    """Delivers what ended processes left, then one journal as it is written."""

    def __init__(self, root: Path, journal: Journal, client: Client | None) -> None:
        super().__init__(daemon=True)  # a server that does not answer must not keep the process
        self.root, self.journal = root, journal
        self.wake, self.closing = threading.Event(), threading.Event()
        self._client, self._others_done = client, False
        self._run: TrackedRun | None = None
        self.wake.set()

    def run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self.wake.wait()
            self.wake.clear()
            last = self.closing.is_set()
            try:
                self._deliver()
                pause = FIRST_PAUSE
            except FAILURES as error:
                if pause == FIRST_PAUSE:
                    log.warning("%s; until then, records wait in %s", first_line(error), outbox.OUTBOX)
                self._client = self._run = None
                self.closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self.wake.set()
            if last:
                return self.journal.release()

    def _deliver(self) -> None:
        self._client = self._client or open_store(self.root)
        if not self._others_done:
            deliver_abandoned(self._client, self.root)
            self._others_done = True
        self._run = deliver(self._client, self.journal, self._run)

    def close(self) -> None:
        """Deliver what waits; for a limited time, where the store is a server."""
        self.closing.set()
        self.wake.set()
        self.join(PATIENCE if is_remote(os.environ.get(VARIABLE, "")) else None)
        if waiting := len(self.journal.waiting()):
            log.warning("%s records wait in %s; `selfscale deliver` sends them", waiting, outbox.OUTBOX)


def deliver(client: Client, journal: Journal, run: TrackedRun | None = None) -> TrackedRun | None:
    """Deliver what waits in a journal; returns the run with which to go on, if it has been opened.

    What was delivered before a process was killed, but not yet forgotten, is delivered again; a run
    takes it once.

    Raises:
        StoreError: the store fails; what is left is delivered by the next call.
    """
    for path in journal.entries():
        entry, files = journal.read(path)
        if path.name == FIRST:
            run = run or KINDS[entry.call](client, **{"started": entry.at, **entry.arguments})
            continue
        assert run is not None
        named: dict[str, Any] = {"files": files} if files else {}
        getattr(run, entry.call)(**entry.arguments, **named, at=entry.at)
        if not run.owned:  # that call was its last
            journal.delete()
            break
        journal.remove(path)
    return run


def deliver_abandoned(client: Client, root: Path) -> int:
    """Deliver what processes left that ended, and end their runs; how many entries these were."""
    delivered = 0
    for journal in outbox.abandoned(root):
        delivered += len(journal.waiting())
        run = deliver(client, journal)
        if run and run.owned:
            run.kill()
            journal.delete()
    return delivered
