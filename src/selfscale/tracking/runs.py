"""The runs that MLflow shows of trainings and minimizations; what is recorded of them is a call of theirs.

    random - seed 0                                      kind=minimization
        7 disable layer 1 filter 3 - reverted            kind=decision, verdict=reverted
            session 7                                    kind=session
        the network, decision by decision                kind=pictures
    training - seed 0                                    kind=training

A filter in MLflow's pages looks at a run's own tags only, so each run repeats task, strategy and
seed. The runs of a decision are written when it is over, so that a killed process leaves nothing
RUNNING but the minimization's own run. Calls may be repeated, and come late (see `delivery`): `at` is
the time of what they tell, in seconds since 1970, by default now.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from selfscale.files import sha256
from selfscale.records import DecisionRecord, SessionRecord
from selfscale.tracking import entries
from selfscale.tracking.entries import Point
from selfscale.tracking.images import RunImages
from selfscale.tracking.owners import ALL_RUNS, ROOT_RUN, end_stale_runs, give_up, own
from selfscale.tracking.store import KEY, experiment, find_run, store_errors
from selfscale.tracking.system_metrics import Sample

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
PICTURE = "network.png"
PICTURES_NAME = "the network, decision by decision"
PICTURES = {"kind": "pictures"}
MOST_METRICS = 1000  # that MLflow takes at once
BATCH = 100  # the most parameters that MLflow takes at once


class Dataset(NamedTuple):
    """The images that a run uses: their name, and a digest of their content."""

    name: str
    digest: str


class TrackedRun:
    """One MLflow run, written by this process.

    `settings` become its parameters, `tags` are what it is found by, with at least `kind`, `task`
    and `seed`. A run with these tags and the same `key` is taken up again if it still exists. Runs of
    the same task that killed processes left RUNNING are ended.

    Raises:
        StoreError: by each method, if the store fails.
        UserError: another living process writes the run of that `key`.
    """

    @store_errors()
    def __init__(
        self,
        client: MlflowClient,
        tags: dict[str, str],
        name: str,
        *,
        settings: Mapping[str, Any],
        dataset: Dataset | None = None,
        key: str | None = None,
        started: float | None = None,
    ) -> None:
        self.client, self.tags, self.key = client, tags, key or uuid4().hex
        self.experiment_id = experiment(client, tags["task"])
        former = find_run(client, tags["task"], self.key, tags)
        self.resumed = former is not None
        self.run_id = str(former.info.run_id) if former else self._create(name, milliseconds(started))
        self._lock = own(client, self.run_id)
        client.update_run(self.run_id, status="RUNNING")
        end_stale_runs(client, [self.experiment_id])
        if not self.resumed:
            write(client, self.run_id, [], entries.flatten(settings, "."))
            if dataset:
                client.log_inputs(self.run_id, datasets=[as_input(dataset)])

    def _create(self, name: str, start: int) -> str:
        tags = self.tags | {KEY: self.key, "system": system_note()} | dvc_revision()
        if commit := get_git_commit(str(Path.cwd())):
            tags["mlflow.source.git.commit"] = commit
        return str(self.client.create_run(self.experiment_id, start, tags, name).info.run_id)

    @property
    def owned(self) -> bool:
        """Whether this process writes the run, which has not ended."""
        return self._lock.is_locked

    @store_errors()
    def _children(self) -> list[Run]:
        below = f"tags.{ROOT_RUN} = '{self.run_id}'"
        return list(self.client.search_runs([self.experiment_id], below, max_results=ALL_RUNS))

    @store_errors()
    def _finish(self, points: Sequence[Point], files: Sequence[Path], note: str, at: float | None) -> None:
        write(self.client, self.run_id, points, at=at)
        for path in files:
            self.client.log_artifact(self.run_id, str(path))
        self._end("FINISHED", {NOTE: note}, at)

    def fail(self, reason: str, at: float | None = None) -> None:
        self._end("FAILED", {"reason": reason}, at)

    def kill(self, at: float | None = None) -> None:
        self._end("KILLED", {}, at)

    @store_errors()
    def _end(self, status: str, tags: dict[str, str], at: float | None) -> None:
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value[:MAX_TAG_VAL_LENGTH])
        self.client.set_terminated(self.run_id, status, milliseconds(at))
        give_up(self._lock)


class TrainingRun(TrackedRun):
    """The run of a training of one network; its parameters are as in TrackedRun."""

    kind = "training"

    def __init__(self, client: MlflowClient, *, task: str, seed: int, **run: Any) -> None:
        tags = {"kind": self.kind, "task": task, "seed": str(seed)}
        super().__init__(client, tags, f"{self.kind} - seed {seed}", **run)

    def finish(
        self,
        session: SessionRecord,
        result: Mapping[str, Any],
        note: str,
        files: Sequence[Path] = (),
        at: float | None = None,
        system: Sequence[Sample] = (),
    ) -> None:
        """Log the session's curves, the numbers in `result` and the files, and end the run."""
        write_system(self.client, self.run_id, system)
        points = entries.curves(session) + entries.result_points(result, session.steps)
        self._finish(points, files, note, at)


class BaselineRun(TrainingRun):
    """The run of a baseline of the comparison."""

    kind = "baseline"


class MinimizationRun(TrackedRun):
    """The run of a minimization, `kind=minimization`, with a run per decision and session below it."""

    def __init__(
        self,
        client: MlflowClient,
        *,
        task: str,
        strategy: str,
        seed: int,
        **run: Any,
    ) -> None:
        tags = {"kind": "minimization", "task": task, "strategy": strategy, "seed": str(seed)}
        name = f"{strategy} - seed {seed}"
        super().__init__(client, tags, name, **run)
        self._logged, self._charted = self._take_up() if self.resumed else (set(), set())
        self._images = self._open_images(milliseconds(run.get("started")))

    @store_errors()
    def _take_up(self) -> tuple[set[int], set[int]]:
        """The decisions that are wholly logged, and those in the run's own charts; deletes halves."""
        children = [run for run in self._children() if "decision" in run.data.tags]
        number = {run.info.run_id: int(run.data.tags["decision"]) for run in children}
        logged = {
            number[run.info.run_id]
            for run in children
            if run.data.tags["kind"] == "decision" and run.info.status == "FINISHED"
        }
        for run_id in (run_id for run_id in number if number[run_id] not in logged):
            self.client.delete_run(run_id)
        charted = {metric.step for metric in self.client.get_metric_history(self.run_id, "score")}
        return logged, charted

    @store_errors()
    def _open_images(self, start: int) -> RunImages:
        """Those of a run below, without parameters: MLflow's pages list them all above each picture."""
        found = [run for run in self._children() if run.data.tags["kind"] == PICTURES["kind"]]
        run_id = found[0].info.run_id if found else self._start(PICTURES_NAME, self.run_id, PICTURES, start)
        self.client.set_terminated(run_id, "FINISHED", start)  # nothing would end it after a kill
        return RunImages(self.client, run_id, resumed=bool(found))

    @store_errors()
    def initial(self, files: Sequence[Path] = (), at: float | None = None, **network: Any) -> None:
        """Begin the run's charts with the initial network, which is logged once, with its pictures.

        `network` has its `score`, `filters_kept`, `parameters` and `macs_per_pixel`.
        """
        if 0 not in self._charted:
            write(self.client, self.run_id, entries.initial(**network), at=at)
            self._charted.add(0)
        self.pictures(0, files, at)

    @store_errors()
    def pictures(self, number: int, files: Sequence[Path] = (), at: float | None = None) -> None:
        """Log the pictures of the network that a decision kept, named by their images; each once."""
        for file in files:
            self._images.log(file, f"network on image {file.stem}", number, milliseconds(at))

    @store_errors()
    def decision(
        self,
        record: DecisionRecord,
        files: Sequence[Path] = (),
        at: float | None = None,
        system: Sequence[Sample] = (),
    ) -> None:
        """Log a decision and its session, with its files; once, however often it is called.

        So a minimization that is taken up again may report what it had done before.
        """
        if record.number in self._logged:
            return
        end = milliseconds(at)
        start = end - round(record.session.seconds * 1000)
        tags = {"decision": str(record.number), "verdict": entries.verdict(record)}
        name = entries.decision_name(record)
        decision_id = self._start(name, self.run_id, tags | {"kind": "decision"}, start)
        session_id = self._start(f"session {record.number}", decision_id, tags | {"kind": "session"}, start)
        for path in files:
            self.client.log_artifact(session_id, str(path))
        write_system(self.client, session_id, system)
        session = {"steps": record.session.steps, "ended": record.session.ended}
        self._complete(session_id, entries.curves(record.session), tags | session, end)
        if record.number not in self._charted:
            write(self.client, self.run_id, entries.charted(record), at=at)
        params = tags | entries.decision_params(record)
        self._complete(decision_id, entries.decision_points(record), params, end)
        self._logged.add(record.number)

    def _start(self, name: str, parent: str, tags: dict[str, str], start: int) -> str:
        tags = self.tags | tags | {PARENT: parent, ROOT_RUN: self.run_id}
        return str(self.client.create_run(self.experiment_id, start, tags, name).info.run_id)

    def _complete(self, run_id: str, points: Sequence[Point], params: dict[str, Any], end: int) -> None:
        params |= {key: self.tags[key] for key in ("task", "strategy", "seed")}
        write(self.client, run_id, points, params, at=end / 1000)
        self.client.set_terminated(run_id, "FINISHED", end)

    def finish(self, result: Mapping[str, Any], files: Sequence[Path] = (), at: float | None = None) -> None:
        """Log the numbers in `result` and the files, describe the run (Markdown) and end it.

        The description shows the file `network.png`.
        """
        points = entries.result_points(result, max(self._logged, default=0))
        note = [entries.summary(result)]
        if any(file.name == PICTURE for file in files):
            note.insert(0, entries.picture(self.run_id, PICTURE))
        self._finish(points, files, "\n\n".join([entries.found(result), *note]), at)


def system_note() -> str:
    return f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"


def dvc_revision() -> dict[str, str]:
    """The state of DVC's files, and the experiment that DVC runs, as far as there are any."""
    lock = Path("dvc.lock")
    found = {
        "dvc.lock": sha256(lock) if lock.exists() else None,
        "dvc.experiment": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
    }
    return {name: value for name, value in found.items() if value}


def as_input(dataset: Dataset) -> DatasetInput:
    source = json.dumps({"uri": dataset.name})
    entity = DatasetEntity(dataset.name, dataset.digest[:MAX_DATASET_DIGEST_SIZE], "local", source)
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def milliseconds(seconds: float | None = None) -> int:
    """A time as MLflow counts it; now, if none is given."""
    return round((time.time() if seconds is None else seconds) * 1000)


def write(
    client: MlflowClient,
    run_id: str,
    points: Sequence[Point],
    params: Mapping[str, Any] | None = None,
    at: float | None = None,
) -> None:
    """Log in as few calls as MLflow's limits allow, usually one.

    MLflow keeps one point of the same value, step and time: what is written twice `at` the same
    time is there once.
    """
    now = milliseconds(at)
    metrics = [Metric(point.metric, point.value, now, point.step) for point in points]
    listed = [Param(key, text(value)) for key, value in (params or {}).items()]
    for start in range(0, max(len(metrics), len(listed)), BATCH):
        client.log_batch(run_id, metrics[start : start + BATCH], listed[start : start + BATCH])


def write_system(client: MlflowClient, run_id: str, samples: Sequence[Sample]) -> None:
    """Log what the machine did; by the prefix MLflow's pages know that it is shown apart."""
    metrics = [
        Metric(f"system/{name}", value, milliseconds(sample.at), step)
        for step, sample in enumerate(samples)
        for name, value in sample.values.items()
    ]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics[start : start + MOST_METRICS])


def text(value: Any) -> str:
    """A setting as text, cut to what MLflow takes."""
    return (value if isinstance(value, str) else json.dumps(value))[:MAX_PARAM_VAL_LENGTH]
