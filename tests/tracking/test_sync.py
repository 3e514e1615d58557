"""MLflow as a picture of the records: whole, once, whatever was cut off, and never in the way."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from selfscale import files
from selfscale.tracking import store, sync
from selfscale.tracking.store import Client, StoreError, open_store
from selfscale.tracking.sync import Syncer, sync_project, sync_record
from stores import (
    ABLATION,
    KEY,
    MEASURED,
    RESULT,
    STARTED,
    TRIALS,
    contents,
    new_store,
    python,
    record,
    runs,
    write_clock,
    write_minimization,
    write_training,
)

NAME = "sobel-random-seed-3"
DONE, CLOCK = Path("models/minimized", NAME), Path(f".selfscale/clocks/minimization-{NAME}.json")
STATE = Path(f".selfscale/minimizations/{NAME}-0123456789abcdef")
LOCK = Path(f".selfscale/minimize-{NAME}.lock")
WRITES = (
    *("create_run", "update_run", "set_terminated", "delete_run", "log_batch", "log_inputs"),
    *("log_artifact", "_log_artifact_helper", "set_tag", "delete_tag"),
)
CALLS = 31  # of them that bring up two decisions
LOOKS = ("search_runs", "get_run", "get_metric_history", "list_artifacts")
SYNCS = """
import sys, time
from pathlib import Path
from selfscale.tracking.store import open_store
from selfscale.tracking.sync import sync_record

root, clock = Path(sys.argv[1]), Path(sys.argv[2])
client = open_store(root)
print("ready", flush=True)
sys.stdin.readline()
print(sync_record(client, root / sys.argv[3], clock))
"""
# A job that is killed while its record is brought up.
DIES = """
import sys, time
from pathlib import Path
from filelock import FileLock
from selfscale.tracking.sync import Syncer

record, lock = map(Path, sys.argv[1:])
with FileLock(lock), Syncer(Path(), record, record / "clock.json"):
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """The working directory: a project without a server, nor a state of DVC or Git."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def client(project) -> Client:
    return new_store(project)


def counted(monkeypatch, names, fails_at: int = 0, error=KeyboardInterrupt) -> list[str]:
    """The calls of the client's methods from now on, of which the n-th fails."""
    calls: list[str] = []

    def counting(name, real):
        def call(*arguments, **named):
            calls.append(name)
            if len(calls) == fails_at:
                raise error
            return real(*arguments, **named)

        return call

    for name in names:
        monkeypatch.setattr(Client, name, counting(name, getattr(Client, name)))
    return calls


def status(client: Client, kind: str = "minimization") -> list[str]:
    return sorted(run.info.status for run in runs(client, kind))


def in_progress(*trials, **clock) -> tuple[Path, Path]:
    """The state folder of a minimization, and its clock."""
    write_minimization(STATE, trials, finished=False)
    return STATE, write_clock(STATE / "clock.json", count=len(trials), **clock)


# -- one record ----------------------------------------------------------------------------------


def test_a_minimization_is_a_run_with_decisions_with_sessions(client):
    run_id = sync_record(client, write_minimization(DONE), write_clock(CLOCK, DONE))
    parent = client.get_run(run_id)
    assert Counter(run.data.tags["kind"] for run in runs(client)) == Counter(
        {"minimization": 1, "decision": 3, "session": 3, "pictures": 1}
    )
    assert {run.info.status for run in runs(client)} == {"FINISHED"}
    assert (parent.data.tags["key"], parent.data.tags["content"]) == (KEY, files.content(DONE))
    assert "Python" in parent.data.tags["system"]
    told = {"strategy": "random", "seed": "3", "changed": ""}
    assert parent.data.params == told | {"network.widths": "[5, 5]"}
    (used,) = parent.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("sample", ("9f" * 32)[:36])
    assert (parent.info.start_time, parent.info.end_time) == (STARTED * 1000, (STARTED + 60) * 1000)
    assert f"run_uuid={run_id}" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["test_final_mae"] == 0.012
    names = ["compact.keras", "decisions.json", "network.png", "result.json", "run.json"]
    assert [file.path for file in client.list_artifacts(run_id)] == names
    for decision in runs(client, "decision"):
        number = int(decision.data.tags["decision"])
        assert decision.data.tags["mlflow.parentRunId"] == run_id
        assert decision.info.end_time == (STARTED + 10 * number) * 1000
        assert decision.info.end_time - decision.info.start_time == 1500
        below = f"tags.`mlflow.parentRunId` = '{decision.info.run_id}'"
        (session,) = client.search_runs([parent.info.experiment_id], below)
        assert session.data.tags["minimization"] == run_id
        assert session.data.tags["strategy"] == "random"
        assert [file.path for file in client.list_artifacts(session.info.run_id)] == [f"{number:03}.npz"]
    (pictures,) = runs(client, "pictures")
    assert pictures.data.tags["mlflow.loggedImages"] == "True"
    assert pictures.data.params == {}  # the pages would show them above each picture
    shown = [Path(file.path).name for file in client.list_artifacts(pictures.info.run_id, "images")]
    assert sorted((name.split("+")[2], Path(name).suffix) for name in shown) == [
        (number, kind) for number in ("0", "1", "3") for kind in (".png", ".webp")
    ]


def test_pictures_have_the_names_that_mlflow_gives_them(client):
    run = client.create_run(client.create_experiment("pictures")).info.run_id
    client.log_image(run, np.zeros((4, 4), np.uint8), key="a key", step=2, timestamp=7, synchronous=True)
    names = [Path(file.path).name for file in client.list_artifacts(run, "images")]
    write_minimization(DONE)
    sync_project(Path())
    ours = [path.name for path in Path("mlruns").rglob("images/*")]
    assert len(names) == 2 and ours
    for ending in ("", r"\+compressed"):
        form = re.compile(rf"[^+]+\+step\+\d+\+timestamp\+\d+\+[-0-9a-f]{{36}}{ending}\.(png|webp)")
        assert any(map(form.fullmatch, names)) and any(map(form.fullmatch, ours))


def test_called_again_it_changes_nothing(client, monkeypatch):
    write_clock(CLOCK, write_minimization(DONE))
    assert sync_project(Path()) == 1
    before = contents(client)
    calls = counted(monkeypatch, WRITES)
    assert sync_project(Path()) == 0
    assert sync_record(client, DONE, CLOCK) == sync_record(client, DONE, None) != ""
    assert calls == []
    assert contents(client) == before


def test_a_clone_shows_the_same(client, tmp_path):
    write_clock(CLOCK, write_minimization(DONE), system=[])
    write_training(Path("models/trained/sobel-seed-3"))
    write_training(Path("models/baseline/sobel-seed-3"), "baseline")
    assert sync_project(Path()) == 3
    clone = tmp_path / "clone"
    shutil.copytree("models", clone / "models")
    there = new_store(clone)
    assert sync_project(clone) == 3

    def without_execution(text: str) -> list:
        """All but what no record can have: the machine, the time and the seconds."""
        shown = json.loads(text)
        for run in shown:
            run["points"].pop("seconds", None)
            run["tags"].pop("system", None)
        return shown

    shown = contents(there, times=False)
    assert without_execution(shown) == without_execution(contents(client, times=False))
    for run in runs(there):
        assert run.info.start_time == run.info.end_time
    assert sync_project(clone) == 0
    assert contents(there, times=False) == shown


def test_a_run_is_found_by_its_execution_then_by_its_content(client):
    write_minimization(DONE)
    first = sync_record(client, DONE, None)
    assert sync_record(client, DONE, write_clock(CLOCK, DONE)) == first  # not once more
    state, clock = in_progress(TRIALS[0], key="f" * 32)
    second = sync_record(client, state, clock)  # the same is minimized again
    assert second != first
    assert sync_record(client, DONE, write_clock(CLOCK, DONE, key="f" * 32)) == second
    assert status(client) == ["FINISHED", "FINISHED"]
    files.write_json(DONE / "result.json", RESULT | {"parameters": 131})
    third = sync_record(client, DONE, CLOCK)  # that clock is not its own
    assert third not in (first, second)


def test_another_job_of_the_same_key_has_a_run_of_its_own(client):
    first = sync_record(client, *in_progress(TRIALS[0]))
    write_minimization(STATE, finished=False, strategy="cosine")
    assert sync_record(client, STATE, STATE / "clock.json") not in ("", first)


def test_a_run_that_was_deleted_comes_back(client):
    write_minimization(DONE)
    run_id = sync_record(client, DONE, None)
    client.delete_run(run_id)
    assert sync_record(client, DONE, None) not in ("", run_id)
    assert status(client) == ["FINISHED"]


def test_more_than_mlflow_takes_at_once(client):
    settings = {"section": {f"key{i}": i for i in range(250)}, "long": "x" * 10_000, "none": None}
    settings["secret"] = "https://me:pass@host/"
    write_minimization(DONE, settings=settings)
    files.write_json(DONE / "result.json", RESULT | {"curve": {f"point{i}": i for i in range(1900)}})
    data = client.get_run(sync_record(client, DONE, None)).data
    assert len(data.params) == 256
    assert data.params["secret"] == "https://host/"
    assert data.params["section.key249"] == "249"
    assert data.params["none"] == "null"
    assert data.metrics["curve_point1899"] == 1899


def test_scores_that_are_no_numbers_are_logged(client):
    broken = record(1, accepted=False)
    object.__setattr__(broken, "score", float("nan"))
    object.__setattr__(broken, "metrics", {"mae": float("inf")})
    assert sync_record(client, write_minimization(DONE, [broken]), None)
    assert status(client) == ["FINISHED"]


def test_an_execution_has_the_state_of_git_and_dvc(client, monkeypatch):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setenv("DVC_EXP_NAME", "dizzy-mole")
    Path("dvc.lock").write_text("schema: '2.0'")
    run = client.get_run(sync_record(client, *in_progress()))
    assert (run.info.run_name, run.data.params["experiment"]) == (
        "random - seed 3 - dizzy-mole",
        "dizzy-mole",
    )
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD").strip()
    assert tags["dvc.experiment"] == "dizzy-mole"
    assert tags["dvc.lock"] == hashlib.sha256(b"schema: '2.0'").hexdigest()
    assert "dvc.baseline" not in tags
    tags = client.get_run(sync_record(client, write_minimization(DONE), None)).data.tags
    assert not {"system", "dvc.lock", "mlflow.source.git.commit"} & set(tags)  # it was made elsewhere


# -- cut off -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[bool, str]:
    """What a store shows of two decisions, with their clock and without."""
    shown = {}
    for timed in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            patch.chdir(tmp_path_factory.mktemp("undisturbed"))
            patch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
            client = new_store(Path())
            write_clock(CLOCK, write_minimization(DONE, TRIALS[:2]))
            calls = counted(patch, WRITES)
            sync_record(client, DONE, CLOCK if timed else None)
            assert len(calls) == CALLS
            shown[timed] = contents(client, times=timed)
    return shown


@pytest.mark.parametrize("call", range(1, CALLS + 1))
def test_a_record_that_was_cut_off_anywhere_is_shown_whole_and_once(client, undisturbed, call):
    """Stop at the n-th write; the next call completes it, and the store is as if nothing had been."""
    write_clock(CLOCK, write_minimization(DONE, TRIALS[:2]))
    timed = bool(call % 3)
    clock = CLOCK if timed else None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, WRITES, fails_at=call)
        sync_record(client, DONE, clock)
    sync_record(client, DONE, clock)
    assert contents(client, times=timed) == undisturbed[timed]


def test_a_test_that_was_cut_off_is_shown_once(client, monkeypatch):
    tests = [MEASURED | {"filter": [0, index]} for index in range(2)]
    files.write_json(Path("reports/worth-sobel-seed-3.json"), ABLATION | {"tests": tests})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, ("set_terminated",), fails_at=2)
        sync_project(Path())
    assert status(client, "worth_test") == ["FINISHED", "RUNNING"]
    assert sync_project(Path()) == 1
    assert status(client, "worth_test") == ["FINISHED", "FINISHED"]
    assert status(client, "worth") == ["FINISHED"]
    names = {run.info.run_name for run in runs(client, "worth_test")}
    assert names == {"disabled layer 0 filter 0", "disabled layer 0 filter 1"}


# -- in progress ---------------------------------------------------------------------------------


def test_a_minimization_grows_with_its_record(client, monkeypatch):
    seen: dict = {}
    run_id = sync_record(client, *in_progress(), seen=seen)
    assert [point.step for point in client.get_metric_history(run_id, "score")] == [0]
    sync_record(client, *in_progress(*TRIALS[:1]), seen=seen)
    place = in_progress(*TRIALS[:2])
    calls = counted(monkeypatch, (*WRITES, *LOOKS))
    assert sync_record(client, *place, seen=seen) == run_id
    assert len(calls) <= 8  # of a decision that was reverted, which has no pictures
    assert not set(calls) & set(LOOKS)
    assert status(client) == ["RUNNING"]
    assert status(client, "decision") == status(client, "session") == ["FINISHED", "FINISHED"]
    assert [point.step for point in client.get_metric_history(run_id, "limit")] == [1, 2]
    write_minimization(DONE)
    assert sync_record(client, DONE, write_clock(CLOCK, DONE), seen=seen) == run_id
    assert sync_record(client, DONE, None) == run_id
    assert status(client) == ["FINISHED"]
    assert [point.step for point in client.get_metric_history(run_id, "score")] == [0, 1, 2, 3]


@pytest.mark.parametrize("end", ["KILLED", "FAILED"])
def test_how_a_run_ends_and_goes_on(client, end):
    reason = "ValueError('a bug')" if end == "FAILED" else ""
    run_id = sync_record(client, *in_progress(*TRIALS[:1]))
    ended = in_progress(*TRIALS[:1], status=end, reason=reason, ended=STARTED + 30)
    for _ in range(2):
        assert sync_record(client, *ended) == run_id
        run = client.get_run(run_id)
        assert (run.info.status, run.info.end_time) == (end, (STARTED + 30) * 1000)
        assert run.data.tags.get("reason", "") == reason
    assert sync_record(client, *in_progress(*TRIALS[:2])) == run_id
    assert status(client) == ["RUNNING"]
    write_minimization(DONE)
    assert sync_record(client, DONE, write_clock(CLOCK, DONE)) == run_id
    run = client.get_run(run_id)
    assert (run.info.status, "reason" in run.data.tags) == ("FINISHED", False)
    assert status(client, "decision") == ["FINISHED"] * 3
    in_progress(*TRIALS)  # what is left of it does not open it again
    assert sync_project(Path()) == 0
    assert status(client) == ["FINISHED"]


def test_runs_in_a_moved_checkout_go_on(client, project):
    place = in_progress()
    shutil.rmtree(STATE / "pictures")  # MLflow remembers in a process where a run's artifacts are
    run_id = sync_record(client, *place)
    project.rename(project.with_name("moved"))
    os.chdir(project.with_name("moved"))
    write_minimization(DONE)
    moved = open_store(Path())
    assert sync_record(moved, DONE, write_clock(CLOCK, DONE)) == run_id
    for session in runs(moved, "session"):
        assert len(moved.list_artifacts(session.info.run_id)) == 1
    assert not project.exists()


def test_a_training_is_shown_from_its_beginning(client):
    out, clock = Path("models/trained/sobel-seed-3"), Path(".selfscale/clocks/training-sobel-seed-3.json")
    write_training(out)  # a former one
    write_clock(clock, count=0)
    assert sync_record(client, out, clock) == ""
    (out / "training.json").unlink()
    run_id = sync_record(client, out, clock)
    assert status(client, "training") == ["RUNNING"]
    assert sync_project(Path()) == 1  # it was killed
    assert status(client, "training") == ["KILLED"]
    write_training(out)
    assert sync_record(client, out, write_clock(clock, out, count=0)) == run_id  # trained again
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == ("FINISHED", "stagnated after 40 steps")
    assert run.info.end_time - run.info.start_time == 60_000
    assert run.data.params == {"training.batch": "8", "seed": "3", "changed": ""}
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [20, 40]


# -- a project -----------------------------------------------------------------------------------


def test_what_was_killed_ends_and_what_lives_is_left_alone(client):
    run_id = sync_record(client, *in_progress(*TRIALS[:1]))
    with FileLock(LOCK):
        in_progress(*TRIALS[:2])
        assert sync_project(Path()) == 0
        assert status(client) == ["RUNNING"]
    assert sync_project(Path()) == 1
    run = client.get_run(run_id)
    assert (run.info.status, run.info.end_time) == ("KILLED", (STARTED + 20) * 1000)
    assert status(client, "decision") == ["FINISHED", "FINISHED"]
    assert sync_project(Path()) == 0


def test_a_damaged_record_is_one_line_and_others_are_shown(client, caplog):
    write_minimization(DONE)
    other = write_minimization(DONE.with_name("sobel-random-seed-0"))
    (other / "decisions.json").write_text("[{}]")
    Path("models/minimized/of-an-older-version").mkdir()
    assert sync_project(Path()) == 1
    (line,) = caplog.messages
    assert line.startswith("models/minimized/sobel-random-seed-0: is not shown by MLflow")


def test_two_processes_at_once_show_a_record_once(client, project, undisturbed):
    write_clock(CLOCK, write_minimization(DONE, TRIALS[:2]))
    command = python(SYNCS, project, CLOCK, str(DONE))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    ids = {process.communicate(timeout=60)[0].strip() for process in both}
    assert ids == {run.info.run_id for run in runs(client, "minimization")}
    assert contents(client) == undisturbed[True]


def test_what_another_process_is_at_is_left_to_it(client, monkeypatch):
    monkeypatch.setattr(sync, "LOCK_SECONDS", 0.1)
    write_minimization(DONE)
    Path(".selfscale").mkdir()
    with FileLock(".selfscale/sync.lock"):
        assert sync_record(client, DONE, None) == ""
        assert sync_project(Path()) == 0


# -- the thread ----------------------------------------------------------------------------------


@pytest.fixture
def away(monkeypatch) -> list[bool]:
    """The store is a server, which answers when its one item is False."""
    state = [True]
    real = store.open_store

    def open_store(root: Path) -> Client:
        if state[0]:
            raise StoreError("no server answers")
        return real(root)

    monkeypatch.setattr(store, "open_store", open_store)
    monkeypatch.setattr(store, "is_remote", lambda uri: True)
    return state


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_thread_shows_each_decision_and_the_end(client):
    place = in_progress()
    with FileLock(LOCK), Syncer(Path(), *place) as syncer:
        for number in (1, 2, 3):
            in_progress(*TRIALS[:number])
            syncer.wake()
            wait_for(lambda n=number: len(runs(client, "decision")) == n)
        write_minimization(DONE)
        syncer.move(DONE, write_clock(CLOCK, DONE))
    assert status(client) == ["FINISHED"]
    before = contents(client)
    assert sync_project(Path()) == 0
    assert contents(client) == before


def test_the_first_of_it_ends_what_was_killed(client):
    sync_record(client, *in_progress(*TRIALS[:1]))
    with Syncer(Path(), write_training(Path("models/trained/sobel-seed-3")), Path("none.json")):
        pass
    assert status(client) == ["KILLED"]
    assert status(client, "training") == ["FINISHED"]


def test_a_server_that_is_away_neither_stops_nor_breaks_anything(client, away, caplog):
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), Syncer(Path(), *in_progress()) as syncer:
        for number in (1, 2):
            in_progress(*TRIALS[:number])
            syncer.wake()
            time.sleep(0.05)
        write_minimization(DONE)
        syncer.move(DONE, write_clock(CLOCK, DONE))
    assert time.monotonic() - started < 5
    assert caplog.messages == [
        "no server answers; MLflow waits, training goes on",
        f"MLflow does not show all of {DONE}; `selfscale sync` brings up the rest",
    ]
    assert runs(client) == []
    away[0] = False
    shutil.rmtree(STATE)
    assert sync_project(Path()) == 1
    (parent,) = runs(client, "minimization")
    times = (parent.info.start_time, parent.info.end_time)
    assert times == (STARTED * 1000, (STARTED + 60) * 1000)  # as it was, not as it was sent
    assert len(runs(client, "decision")) == 3


def test_a_server_that_comes_back_gets_it_all_while_the_run_goes_on(client, away, caplog):
    with FileLock(LOCK), Syncer(Path(), *in_progress(*TRIALS[:1])) as syncer:
        wait_for(lambda: caplog.messages)
        away[0] = False
        syncer.wake()
        wait_for(lambda: not syncer._first)  # it has brought up all that there was
        assert len(runs(client, "decision")) == 1
        away[0] = True
        syncer._client = None
        in_progress(*TRIALS[:2])
        syncer.wake()
        wait_for(lambda: len(caplog.messages) == 2)  # said again, since it had worked
        away[0] = False
    assert len(runs(client, "decision")) == 2


@pytest.mark.parametrize("name", ["create_run", "log_artifact", "log_batch", "set_terminated"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_store_that_fails_anywhere_has_everything_in_the_end(client, monkeypatch, name, call, caplog):
    counted(monkeypatch, [name], call, OSError(errno.ENOSPC, "No space left on device"))
    with FileLock(LOCK), Syncer(Path(), *in_progress(*TRIALS)) as syncer:
        write_minimization(DONE)
        syncer.move(DONE, write_clock(CLOCK, DONE))
    sync_record(client, DONE, CLOCK)  # what failed in the last attempt
    assert (
        caplog.messages[0]
        == "mlruns: the MLflow store fails: No space left on device; MLflow waits, training goes on"
    )
    assert status(client) == ["FINISHED"]
    assert status(client, "decision") == status(client, "session") == ["FINISHED"] * 3
    (parent,) = runs(client, "minimization")
    charted = client.get_metric_history(parent.info.run_id, "score")
    assert [point.step for point in charted] == [0, 1, 2, 3]


def test_a_slow_server_is_waited_for_only_so_long(client, away, caplog, monkeypatch):
    away[0] = False
    monkeypatch.setattr(sync, "PATIENCE", 0.2)
    real, answers = Client.log_batch, []

    def slow(*arguments, **named):
        while not answers:
            time.sleep(0.01)
        real(*arguments, **named)

    monkeypatch.setattr(Client, "log_batch", slow)
    with Syncer(Path(), *in_progress(*TRIALS[:1])) as syncer:
        pass
    assert "`selfscale sync` brings up the rest" in caplog.text
    answers.append(True)
    syncer.join(20)
    assert status(client, "decision") == ["FINISHED"]


def test_a_sigkill_leaves_nothing_running(client):
    place = in_progress(*TRIALS[:2])
    with subprocess.Popen(python(DIES, STATE, LOCK), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        wait_for(lambda: len(runs(client, "session")) > 0)
        assert sync_project(Path()) == 0
        process.send_signal(signal.SIGKILL)
    sync_project(Path())
    assert status(client) == ["KILLED"]
    with FileLock(LOCK), Syncer(Path(), *place) as syncer:
        write_minimization(DONE)
        syncer.move(DONE, write_clock(CLOCK, DONE))
    assert {run.info.status for run in runs(client)} == {"FINISHED"}
    assert sorted(run.data.tags["decision"] for run in runs(client, "decision")) == ["1", "2", "3"]
