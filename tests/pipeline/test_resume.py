"""A minimization that was killed, wherever it was, goes on and ends as if it had not been."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st

from selfscale import paths as workspace
from selfscale.decisions import DecisionRecord, Filter, SessionRecord
from selfscale.errors import UserError
from selfscale.files import read_json
from selfscale.nn.trainer import Trainer
from selfscale.pipeline import resume
from selfscale.pipeline.execution import clock_of
from selfscale.pipeline.results import without_seconds
from selfscale.progress import Moment, Progress
from selfscale.search.acceptance import reference_of
from selfscale.settings import load
from selfscale.tracking.store import open_store
from selfscale.tracking.sync import end_killed
from stores import new_store, python, record, runs
from workspaces import (
    JOB,
    OWN_PHOTOGRAPHS,
    change_params,
    contents,
    minimize,
    minimize_and_die,
    minimized_project,
    new_project,
    own_store,
    prepare,
    train,
    trained_project,
)

SAVED = "going on after decision"


@pytest.fixture(scope="module", autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    """The outputs of an uninterrupted minimization."""
    files = contents(minimized_project() / JOB.output)
    assert len(json.loads(files["decisions.json"])) >= 4  # so that there is something to interrupt
    return files


@pytest.fixture
def project(tmp_path) -> Path:
    return shutil.copytree(trained_project(), tmp_path / "project")


def interrupt(folder: Path, evaluations: int) -> None:
    """Ctrl-C at the n-th evaluation inside a session."""
    left = evaluations

    def listener(moment: Moment) -> None:
        nonlocal left
        left -= moment.score is not None
        if not left:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(folder, progress=Progress(listener))


def state(folder: Path) -> Path:
    (path,) = (folder / ".selfscale" / "minimizations").glob("*/state.npz")
    return path


def assert_logged_once(folder: Path) -> None:
    """One finished minimization, with each of its decisions and sessions once."""
    client = open_store(folder)
    decisions = read_json(folder / JOB.output / "decisions.json", "minimize")
    numbers = [str(decision["number"]) for decision in decisions]
    (parent,) = runs(client, "minimization")
    children = runs(client, "decision"), runs(client, "session")
    for kind in children:
        assert sorted((run.data.tags["decision"] for run in kind), key=int) == numbers
    assert {run.info.status for run in (parent, *children[0], *children[1])} == {"FINISHED"}
    charted = client.get_metric_history(parent.info.run_id, "score")
    first, *others = ((point.step, point.value) for point in charted)
    assert first[0] == 0
    assert others == [(d["number"], d["score"]) for d in decisions]
    kept = client.get_metric_history(parent.info.run_id, "score_accepted")
    assert [point.step for point in kept] == [0, *(d["number"] for d in decisions if d["accepted"])]
    (holder,) = runs(client, "pictures")
    logged = [picture_of(file.path) for file in client.list_artifacts(holder.info.run_id, "images")]
    written = [path for path in (folder / JOB.output / "pictures").rglob("*.png")]
    assert len(written) >= 4  # of two images, and two networks
    names = {(f"network on image {path.stem}", int(path.parent.name)) for path in written}
    assert sorted(logged) == sorted((*name, kind) for name in names for kind in (".png", ".webp"))
    with chdir(folder):
        assert clock_of(JOB)["key"] == parent.data.tags["key"]


def picture_of(path: str) -> tuple[str, int, str]:
    """Key, step and kind of a picture that MLflow keeps."""
    key, step = re.match(r"images/(.+?)\+step\+(\d+)\+", path).groups()
    return key, int(step), Path(path).suffix


def test_the_same_seed_twice_makes_the_same_files(expected, tmp_path):
    again = tmp_path / "again"
    new_project(again, OWN_PHOTOGRAPHS)
    prepare(again)
    train(again)
    assert contents(again / "models") == contents(trained_project() / "models")
    minimize(again)
    assert contents(again / JOB.output) == expected
    assert_logged_once(again)
    (run,) = runs(open_store(again), "minimization")
    scores = json.loads(expected["result.json"])["validation"]
    charted = open_store(again).get_metric_history(run.info.run_id, "score_accepted")
    ends = [scores[which]["mae"] for which in ("initial", "final")]
    assert [charted[0].value, charted[-1].value] == pytest.approx(ends)


# Where it is killed, at which call in each process: with some pictures logged, with a decision half logged,
# in a session, before a decision is saved, and with the outputs half written.
PLACES = {
    "selfscale.tracking.runs:StoredRun._show": 1,
    "selfscale.tracking.runs:StoredRun._write": 4,
    "selfscale.nn.trainer:Trainer._advance": 3,
    "selfscale.pipeline.resume:save": 2,
    "selfscale.files:write_csv": 1,
}


def test_killed_and_moved_again_and_again_it_goes_on(project, expected, tmp_path):
    for number, (function, call) in enumerate(PLACES.items()):
        assert minimize_and_die(project, function, call, signal.SIGKILL) == -signal.SIGKILL
        assert statuses(project) <= {"RUNNING", "KILLED"}
        assert not (project / JOB.output / "result.json").exists()
        project = project.rename(tmp_path / f"moved elsewhere {number}")
        with chdir(project):
            end_killed(open_store(project), project)
        assert statuses(project) <= {"KILLED"}
    in_the_last_upload = "selfscale.tracking.runs:StoredRun._end"
    assert minimize_and_die(project, in_the_last_upload, 1, signal.SIGKILL) == -signal.SIGKILL
    assert contents(project / JOB.output) == expected
    assert statuses(project) <= {"RUNNING", "KILLED"}  # it ends with the next minimization
    minimize(project)
    assert contents(project / JOB.output) == expected
    assert_logged_once(project)
    assert state(project)  # the only file left of all this


def statuses(project: Path) -> set[str]:
    found = runs(open_store(project), "minimization")
    assert len(found) <= 1
    return {run.info.status for run in found}


def test_terminated_its_run_says_so_until_it_goes_on(project, expected, caplog):
    code = minimize_and_die(project, "selfscale.nn.trainer:Trainer._advance", 6, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    (run,) = runs(open_store(project), "minimization")
    assert run.info.status == "KILLED"
    with caplog.at_level(logging.INFO):
        minimize(project)
    assert re.search(f"{SAVED} [1-9]", caplog.text)
    assert contents(project / JOB.output) == expected
    assert_logged_once(project)


def test_interrupted_again_and_again_also_when_the_store_was_deleted(project, expected):
    for _ in range(3):
        interrupt(project, evaluations=3)  # a decision has two or more
        shutil.rmtree(project / "mlruns")
        new_store(project)
    interrupt(project, evaluations=3)
    minimize(project)
    assert contents(project / JOB.output) == expected
    assert_logged_once(project)


def test_other_settings_start_anew(project, expected, tmp_path, caplog):
    changes = {"minimization.tolerance": 0.9}
    fresh = shutil.copytree(project, tmp_path / "fresh")
    change_params(fresh / "params.yaml", changes)
    minimize(fresh)
    interrupt(project, evaluations=5)
    change_params(project / "params.yaml", changes)
    with caplog.at_level(logging.INFO):
        minimize(project)
    assert SAVED not in caplog.text
    assert contents(project / JOB.output) == contents(fresh / JOB.output) != expected
    statuses = [run.info.status for run in runs(open_store(project), "minimization")]
    assert sorted(statuses) == ["FINISHED", "KILLED"]


def test_a_finished_one_starts_anew(expected, tmp_path):
    project = shutil.copytree(minimized_project(), tmp_path / "project")
    shutil.rmtree(project / JOB.output)  # as DVC does before it runs a stage
    minimize(project)
    assert contents(project / JOB.output) == expected
    assert [run.info.status for run in runs(open_store(project), "minimization")] == ["FINISHED"] * 2


def test_a_snapshot_goes_on_with_other_images(project, tmp_path):
    interrupt(project, evaluations=7)
    other = tmp_path / "other"
    new_project(other, OWN_PHOTOGRAPHS)
    prepare(other, seed=8)
    shutil.copytree(project / "models", other / "models")
    minimize(other, snapshot=state(project))
    decisions = read_json(other / JOB.output / "decisions.json", "minimize")
    known = json.loads(
        json.dumps([without_seconds(record) for record in resume.load(state(project)).records])
    )
    assert 1 <= len(known) < len(decisions)
    former = decisions[: len(known)]
    for content in (*former, *known):
        del content["photograph_sums"]  # those of other images say nothing about these
    assert former == known
    result = read_json(other / JOB.output / "result.json", "minimize")
    assert sum(result["filters_kept"]) == 5 - result["accepted"]
    assert_logged_once(other)


def test_only_the_network_kept_last_is_compared_with_on_other_images():
    records = [record(1), record(2), record(3, accepted=False)]
    judged = resume.judged_anew(records, np.array([[7.0, 2.0]]))
    assert [r.photograph_sums for r in judged] == [(), ((7.0, 2.0),), ()]
    initial = np.array([[9.0, 2.0]])
    for name, expected in (("initial", 9.0), ("previous", 7.0), ("best", 7.0)):
        np.testing.assert_array_equal(reference_of(name, initial, judged), [[expected, 2.0]])


def test_a_snapshot_of_another_network_is_refused(project):
    interrupt(project, evaluations=1)
    snapshot = state(project).rename(project / "snapshot.npz")
    change_params(project / "params.yaml", {"network.widths": [4]})
    train(project)
    with pytest.raises(UserError, match=r"snapshot\.npz: is a snapshot of another network"):
        minimize(project, snapshot=snapshot)
    assert not (project / JOB.output).exists()


@pytest.mark.parametrize("content", [None, b"", b"not a snapshot", b"PK\x03\x04 cut"])
def test_a_missing_or_damaged_snapshot_is_named(tmp_path, content):
    path = tmp_path / "snapshot.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"snapshot\.npz: is (no|not a) snapshot"):
        resume.load(path)


def test_the_second_of_two_waits_and_writes_without_training(project, expected, monkeypatch):
    """A killed `dvc repro` leaves its stage alive; the next one deletes the outputs and starts it again."""
    first = subprocess.Popen(python(WAITS, *JOB.command.split()), cwd=project)
    try:
        wait_until(lambda: is_locked(project / ".selfscale" / f"minimize-{JOB.name}.lock"), first)
        monkeypatch.setattr(workspace.log, "warning", lambda *_: (project / "go").touch())
        monkeypatch.setattr(Trainer, "session", None)
        minimize(project)
    finally:
        (project / "go").touch()
        assert first.wait(timeout=60) == 0
    assert contents(project / JOB.output) == expected
    assert_logged_once(project)


# `selfscale minimize`, which before its end waits for a file.
WAITS = """
import sys, time
from pathlib import Path
from selfscale.cli import app as cli
from selfscale.pipeline import minimize as minimizing

write_result = minimizing.write_result

def late(*arguments):
    while not Path("go").exists():
        time.sleep(0.05)
    return write_result(*arguments)

minimizing.write_result = late
sys.argv = ["selfscale", *sys.argv[1:]]
cli.main()
"""


def is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.05)


def digest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    return resume.inputs_of_minimization(load(Path("params.yaml")), JOB)


@pytest.mark.parametrize(
    "changes",
    [
        {"training.batch": 5},
        {"evaluation.threshold": 0.4},
        {"minimization.removal.steps": 21},
        {"minimization.layers.tries": 1},
        {"tasks.sobel.loss": "mse"},
        {"strategies.random.select": "sequential"},
    ],
    ids=str,
)
def test_a_state_belongs_to_what_the_decisions_depend_on(project, monkeypatch, changes):
    before = digest(project, monkeypatch)
    change_params(project / "params.yaml", changes)
    assert digest(project, monkeypatch) != before


def test_a_state_does_not_belong_to_what_else_is_run(project, monkeypatch):
    before = digest(project, monkeypatch)
    change_params(
        project / "params.yaml",
        {
            "runs.strategies": ["random", "cosine"],
            "tasks.canny.loss": "mse",
            "strategies.cosine.arguments": {"over": "maximum"},
        },
    )
    assert digest(project, monkeypatch) == before


values = st.floats(allow_nan=False)
counts = st.integers(0, 10_000)
curves = st.lists(st.tuples(counts, values), max_size=4).map(tuple)
sessions = st.builds(
    SessionRecord, counts, curves, curves, st.sampled_from(["completed", "dead", "non-finite"]), values
)
records = st.builds(
    DecisionRecord,
    number=counts,
    alteration=st.sampled_from(["disable", "train"]),
    filters=st.lists(st.builds(Filter, counts, counts), max_size=3).map(tuple),
    selection_score=values,
    started_from=counts,
    limit=values,
    score_before_training=values,
    score=values,
    relative_loss=values,
    bound=values,
    metrics=st.dictionaries(st.sampled_from(["mae", "uiqi", "f1"]), values),
    photograph_sums=st.lists(st.tuples(values, values), max_size=3).map(tuple),
    accepted=st.booleans(),
    reason=st.text(),
    filters_kept=st.lists(counts, max_size=4).map(tuple),
    parameters=counts,
    macs_per_pixel=values,
    session=sessions,
)


@given(records)
def test_a_record_survives_json(record: DecisionRecord):
    back: dict[str, Any] = json.loads(json.dumps(asdict(record)))
    assert resume.RECORDS.validate_python([back])[0] == record
    assert all(isinstance(filter, Filter) for filter in resume.RECORDS.validate_python([back])[0].filters)


# -- after a layer was removed -------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenient(tmp_path_factory) -> Path:
    """A trained project whose minimization keeps every trial: a layer is removed first."""
    folder = tmp_path_factory.mktemp("lenient") / "project"
    changes = {
        "network.widths": [4, 4],
        "minimization.layers.tries": 2,
        "minimization.removal.group": 1,
        "minimization.tolerance": 1e6,
    }
    new_project(folder, OWN_PHOTOGRAPHS | changes)
    prepare(folder)
    train(folder)
    return folder


@pytest.fixture(scope="module")
def expected_smaller(lenient, tmp_path_factory) -> dict[str, bytes]:
    folder = shutil.copytree(lenient, tmp_path_factory.mktemp("uninterrupted") / "project")
    minimize(folder)
    files = contents(folder / JOB.output)
    decisions = json.loads(files["decisions.json"])
    removals = [d["number"] for d in decisions if d["alteration"] == "remove_layer" and d["accepted"]]
    assert removals and removals[0] < len(decisions) - 1  # so that there is something behind it
    assert sorted(json.loads(files["result.json"])["filters_kept"]) == [0, 1]
    return files


def ends_of_sessions(files: dict[str, bytes]) -> list[int]:
    """How often it had been evaluated at the end of each session after a layer was removed."""
    evaluations, gone, ends = 0, False, []
    for decision in json.loads(files["decisions.json"]):
        evaluations += len(decision["session"]["scores"])
        if gone and decision["session"]["steps"]:
            ends.append(evaluations)
        gone |= decision["alteration"] == "remove_layer" and decision["accepted"]
    return ends


def test_killed_and_interrupted_after_a_layer_was_removed_it_goes_on(lenient, tmp_path, expected_smaller):
    """In the next session and in the last one, each time before its last part."""
    project = shutil.copytree(lenient, tmp_path / "project")
    interrupt(project, evaluations=2)
    for end in (0, -1):
        done = resume.load(state(project)).records
        call = ends_of_sessions(expected_smaller)[end] - sum(len(one.session.scores) for one in done)
        assert minimize_and_die(project, "selfscale.nn.trainer:Trainer._advance", call, signal.SIGKILL) < 0
        done = resume.load(state(project))
        assert len(done.snapshot.network.layers) == 1
        assert 0 in done.records[-1].filters_kept
        if not end:
            interrupt(project, evaluations=2)
    minimize(project)
    assert contents(project / JOB.output) == expected_smaller
    assert_logged_once(project)
