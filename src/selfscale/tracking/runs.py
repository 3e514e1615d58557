"""Upload of runs to the store, which may be cut off and repeated; `records` has what each is made of.

    random - seed 0                                      kind=minimization
        7 disable layer 1 filter 3 - reverted            kind=decision, verdict=reverted
            session 7                                    kind=session
        the network, decision by decision                kind=pictures
    training - seed 0                                    kind=training
    baseline - seed 0                                    kind=baseline
    worth - seed 0                                       kind=worth
        disabled layer 0 filter 3                        kind=worth_test

A filter in MLflow's pages looks at a run's own tags only, so each run repeats task, strategy and seed.
Runs below another are written when what they show is over: a killed process leaves nothing RUNNING
but the run itself, and halves, which are deleted and written anew.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from PIL import Image

from selfscale.errors import redact
from selfscale.files import sha256
from selfscale.tracking.points import Picture, Point, RunData, text

if TYPE_CHECKING:  # MLflow takes seconds to import: the functions do, in the thread that uploads
    from mlflow.entities import DatasetInput, Run

    from selfscale.tracking.records import Record
    from selfscale.tracking.store import Client

PARENT = "mlflow.parentRunId"
ROOT_RUN = "minimization"  # tag of all runs below a record's run: the id of that run
NOTE = "mlflow.note.content"
# What MLflow takes at once and at most: `MOST_METRICS` leaves room for the parameters.
MOST_METRICS, MOST_PARAMS, ALL_RUNS = 900, 100, 50_000
MOST_DIGEST, MOST_TAG = 36, 8000

PICTURES = "the network, decision by decision"
IMAGES = "images"
SMALL = ".webp"  # the preview of a picture, which is written last
# As MLflow names them: KEY+step+N+timestamp+T+ID.png, and beside it KEY+...+ID+compressed.webp
IMAGE = re.compile(
    r"(?P<whole>(?P<key>.+?)\+step\+(?P<step>\d+)\+timestamp\+[^+]+\+[^+]+?)(\+compressed)?\.\w+"
)
PREVIEW_SIDE = 256


class StoredRun:
    """The run of a record in the store; remembers what is there, so that nothing is looked up twice."""

    def __init__(self, client: Client, run: Run, record: Record, *, new: bool) -> None:
        self.client, self.id, self.tags = client, str(run.info.run_id), dict(record.tags)
        self.experiment_id, self.start = run.info.experiment_id, int(run.info.start_time)
        self.status, self.content = run.info.status, run.data.tags.get("content", "")
        self.changed = new
        self._parts: set[str] = set()
        self._charted: set[int] = set()
        self._pictures_id = ""
        self._images: dict[tuple[str, int], set[str]] = {}
        if self.shows(record):
            return
        if not new:
            self._take_up(run, record.status)
        known = {"experiment": run.data.tags.get("dvc.experiment")}
        params = record.params | {key: value for key, value in known.items() if value}
        missing = {key: value for key, value in params.items() if key not in run.data.params}
        self._write(self.id, (), missing)
        if (images := record.about.get("dataset")) and not (run.inputs and run.inputs.dataset_inputs):
            client.log_inputs(self.id, datasets=[as_input(**images)])

    def shows(self, record: Record) -> bool:
        """Whether the run has all that the record says."""
        return self.status == "FINISHED" and record.content in ("", self.content)

    def bring_up(self, record: Record) -> None:
        """Upload what the store has not yet of a record."""
        if self.shows(record):
            return
        if record.status == "RUNNING" != self.status:
            self.client.update_run(self.id, status="RUNNING")
            self.status = "RUNNING"
        chart = record.chart(self._charted)
        self._write(self.id, chart)
        self._charted |= {point.step for point in chart if point.metric == "score"}
        for run in record.parts(self._parts):
            self._add(run, self.id)
            self._parts.add(part(run.tags))
            self.changed = True
        for picture in record.pictures():
            self._show(picture)
        if record.content or record.status != self.status:
            self._end(record)

    def _take_up(self, run: Run, status: str) -> None:
        """Learn what the store has of an earlier upload; delete what that left half done."""
        below = f"tags.{ROOT_RUN} = '{self.id}'"
        children = self.client.search_runs([self.experiment_id], below, max_results=ALL_RUNS)
        whole = [child for child in children if child.info.status == "FINISHED"]
        outer = [child for child in whole if child.data.tags["kind"] in ("decision", "worth_test")]
        self._parts = {part(child.data.tags) for child in outer}
        for child in children:
            if child.data.tags["kind"] == "pictures":
                self._open_pictures(child.info.run_id)
            elif part(child.data.tags) not in self._parts:
                self.client.delete_run(child.info.run_id)
        self._charted = {point.step for point in self.client.get_metric_history(self.id, "score")}
        if "reason" in run.data.tags and status in ("RUNNING", "FINISHED"):  # it went on
            self.client.delete_tag(self.id, "reason")

    def _add(self, run: RunData, parent: str) -> None:
        end = self._time(run.end)
        tags = self.tags | dict(run.tags) | {PARENT: parent, ROOT_RUN: self.id}
        created = self.client.create_run(self.experiment_id, self._time(run.start), tags, run.name)
        run_id = str(created.info.run_id)
        for child in run.children:
            self._add(child, run_id)
        for file in run.files:
            self.client.log_artifact(run_id, str(file))
        self._write(run_id, run.points, run.params, end=end)
        self.client.set_terminated(run_id, "FINISHED", end)

    def _end(self, record: Record) -> None:
        """Log what a finished record says in the end, and the status; the store has it all before."""
        end, tags = self._time(record.end), {"reason": record.reason} if record.reason else {}
        points: Sequence[Point] = ()
        if record.content:
            points = record.final_points()
            tags = record.facts() | {NOTE: record.note(self.id), "content": record.content}
            for file in record.artifacts():
                self.client.log_artifact(self.id, str(file))
        # Later than the charts' last points: a logged model takes one value a step and time.
        self._write(self.id, points, tags=tags, end=end + 1)
        self.client.set_terminated(self.id, record.status, end)
        self.status, self.content, self.changed = record.status, record.content, True

    def _write(
        self,
        run_id: str,
        points: Iterable[Point],
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        end: int | None = None,
    ) -> None:
        """Log in as few calls as MLflow takes it, usually one.

        MLflow keeps one point of the same value, step and time: written twice, it is there once.
        """
        from mlflow.entities import Metric, Param, RunTag

        end = self.start if end is None else end
        metrics = [
            Metric(name, value, end if at is None else milliseconds(at), step)
            for name, value, step, at in points
        ]
        listed = [Param(key, text(value)) for key, value in (params or {}).items()]
        marks = [RunTag(key, redact(value)[:MOST_TAG]) for key, value in (tags or {}).items()]
        while metrics or listed or marks:
            self.client.log_batch(run_id, metrics[:MOST_METRICS], listed[:MOST_PARAMS], marks)
            metrics, listed, marks = metrics[MOST_METRICS:], listed[MOST_PARAMS:], []
            self.changed = True

    def _time(self, seconds: float | None) -> int:
        return self.start if seconds is None else milliseconds(seconds)

    def _show(self, picture: Picture) -> None:
        """Log a picture, once, on a run of their own: MLflow's pages list a run's parameters above each."""
        at, files = self._time(picture.at), self._images.get((picture.key, picture.step))
        if files and any(name.endswith(SMALL) for name in files):
            return
        if not self._pictures_id:
            tags = self.tags | {"kind": "pictures", "mlflow.loggedImages": "True"}
            tags |= {PARENT: self.id, ROOT_RUN: self.id}
            created = self.client.create_run(self.experiment_id, self.start, tags, PICTURES)
            self._open_pictures(created.info.run_id, new=True)
        # As MLflow's `log_image`, which would decode and encode the whole picture again.
        fresh = f"{picture.key}+step+{picture.step}+timestamp+{at}+{uuid4()}.png"
        name = next(iter(files or ()), fresh)  # one that is there was cut off before its preview
        with tempfile.TemporaryDirectory() as folder:
            if not files:
                shutil.copyfile(picture.file, Path(folder, name))
                self.client.log_artifact(self._pictures_id, str(Path(folder, name)), IMAGES)
            self._add_preview(picture, Path(folder), name)
        self._images[picture.key, picture.step] = {SMALL}
        self.changed = True

    def _open_pictures(self, run_id: str, *, new: bool = False) -> None:
        self._pictures_id = str(run_id)
        self.client.set_terminated(run_id, "FINISHED", self.start)  # nothing would end it after a kill
        for listed in () if new else self.client.list_artifacts(run_id, IMAGES):
            name = Path(listed.path).name
            if found := IMAGE.fullmatch(name):
                self._images.setdefault((found["key"], int(found["step"])), set()).add(name)

    def _add_preview(self, picture: Picture, folder: Path, name: str) -> None:
        small = folder / f"{Path(name).stem}+compressed{SMALL}"
        preview = Image.open(picture.file).convert("RGB")
        preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        preview.save(small)
        self.client.log_artifact(self._pictures_id, str(small), IMAGES)


def create(client: Client, experiment_id: str, record: Record) -> StoredRun:
    """A new run of a record, with the tags by which it is found; and, of this machine's own, its state."""
    from mlflow.utils.git_utils import get_git_commit

    lock = Path("dvc.lock")
    execution = {
        "key": record.key,
        "system": f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs",
        "dvc.lock": sha256(lock) if lock.exists() else None,
        "dvc.experiment": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "mlflow.source.git.commit": get_git_commit(str(Path.cwd())),
    }
    found = {"content": record.content} | (execution if record.key else {})
    tags = record.tags | {key: value for key, value in found.items() if value}
    start = None if record.start is None else milliseconds(record.start)
    name = " - ".join(filter(None, [record.name, tags.get("dvc.experiment")]))
    run = client.create_run(experiment_id, start, tags, name)
    return StoredRun(client, run, record, new=True)


def part(tags: Mapping[str, str]) -> str:
    """What names a decision's or a test's run, and its session's, among those of its record."""
    return tags.get("decision") or " ".join(tags[key] for key in ("test", "layer", "filter"))


def as_input(name: str, digest: str) -> DatasetInput:
    """The images that a run uses: where they are from, and a digest of their content."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": name})
    entity = Dataset(name, digest[:MOST_DIGEST], "local", source)
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def milliseconds(seconds: float) -> int:
    """A time as MLflow counts it."""
    return round(seconds * 1000)
