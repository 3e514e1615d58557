"""One execution of a job: its record's `run.json`, its clock, and MLflow's picture of both.

The record is what the job leaves, and depends on settings and inputs only. The clock has what varies from
one execution to the next, times for example, and is no output of any stage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from selfscale import files, schemas
from selfscale.paths import PREPARED, TARGETS, Job, Work, store_root
from selfscale.settings import Settings
from selfscale.tracking.points import Clock
from selfscale.tracking.sync import Syncer
from selfscale.tracking.system_metrics import Monitor

# Of `execution`, what changes results.
EXECUTION = {"threads", "deterministic", "mixed_precision", "xla", "blocks"}


def about(
    settings: Settings, work: Work, sections: Collection[str] | Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """What a record's `run.json` says: the job, and the settings and images that it depends on.

    `sections` are all or, as pydantic's `include`, in part those that the job depends on.
    """
    parts = sections if isinstance(sections, Mapping) else dict.fromkeys(sections, True)
    chosen = settings.model_dump(mode="json", include={**parts, "execution": EXECUTION})
    chosen["tasks"] = {work.task: settings.tasks[work.task].model_dump(mode="json")}
    words = {"kind": work.kind, "task": work.task, "seed": work.seed}
    if isinstance(work, Job):
        words["strategy"] = work.strategy
        chosen["strategies"] = {work.strategy: settings.strategies[work.strategy].model_dump(mode="json")}
    found: dict[str, Any] = {**words, "settings": chosen}
    if not settings.tasks[work.task].problem:
        manifest = files.read_json(PREPARED / "manifest.json", "prepare", schemas.Prepared)
        found["dataset"] = {"name": manifest["source"], "digest": manifest["fingerprint"]}
    return {**found, "targets": files.content(TARGETS / work.task / "manifest.json"), **more}


def clock_of(work: Work) -> dict[str, Any] | None:
    """The clock of the execution that made an output; DVC may have taken another from its cache."""
    if not work.clock.exists():
        return None
    found: dict[str, Any] = files.read_json(work.clock, work.command, Clock)
    return found if found["content"] == files.content(work.output) else None


def new_clock() -> dict[str, Any]:
    return {"key": uuid4().hex, "started": time.time(), "status": "RUNNING", "decisions": {}}


class Execution:
    """As a context manager it ends as KILLED or FAILED with the block, unless it has finished.

    An execution that a process left before MLflow had all of it is taken up again, and so is its run; but
    not with other settings, as a run's parameters cannot be changed.
    """

    def __init__(self, record: Path, clock: Path, about: Mapping[str, Any]) -> None:
        chosen = os.environ.get("MLFLOW_TRACKING_URI", "")
        if chosen and not chosen.startswith("http"):
            from selfscale.tracking.store import open_store  # with MLflow, which takes seconds to import

            open_store(store_root())  # a wrong one is told before the work; a server may come back during it
        self._path = clock
        files.write_json(record / "run.json", about)
        former = files.read_json(clock, "doctor", Clock) if clock.exists() else {}
        begun = {
            "about": files.sha256(record / "run.json"),
            "status": "RUNNING",
            "ended": None,
            "shown": False,
        }
        goes_on = former.get("about") == begun["about"] and not former["shown"]
        self.clock = (former if goes_on else new_clock()) | begun
        self._write()
        self._monitor, self._syncer = Monitor(), Syncer(store_root(), record, clock)

    def __enter__(self) -> Self:
        self._monitor.start()
        self._syncer.__enter__()
        return self

    def decided(self, number: int, seconds: float) -> None:
        """A decision is made, whose session took so many seconds; the record does not have it yet."""
        system = self._monitor.last(seconds)
        self.clock["decisions"][str(number)] = {"at": time.time(), "seconds": seconds, "system": system}
        self._write()

    def show(self) -> None:
        """Bring MLflow up to what is in the record now."""
        self._syncer.wake()

    def finish(self, record: Path, clock: Path, seconds: float) -> None:
        """The record is whole; it and the clock may lie in another place now.

        Args:
            record: The folder of the record.
            clock: The file for the clock. One in another place stays, for what goes on after a kill in the
                last upload.
            seconds: Of training in all.
        """
        self.clock |= {
            "status": "FINISHED",
            "ended": time.time(),
            "content": files.content(record),
            "seconds": seconds,
            "system": [] if self.clock["decisions"] else self._monitor.last(seconds),
        }
        self._path = clock
        self._write()
        self._syncer.move(record, clock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.clock["status"] == "RUNNING":
            killed = isinstance(error, (KeyboardInterrupt, SystemExit))
            self.clock |= {"status": "KILLED" if killed else "FAILED", "ended": time.time()}
            self.clock["reason"] = "" if killed else repr(error)
            self._write()
        self._monitor.close()
        self._syncer.__exit__(kind, error, trace)
        if self.clock["status"] == "FINISHED":
            self.clock["shown"] = True
            self._write()

    def _write(self) -> None:
        files.write_json(self._path, self.clock)
