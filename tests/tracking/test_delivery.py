from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from selfscale.errors import UserError
from selfscale.tracking import delivery, outbox
from selfscale.tracking.delivery import Recorder, deliver, deliver_abandoned
from selfscale.tracking.outbox import FIRST, Journal
from selfscale.tracking.runs import MinimizationRun, TrackedRun
from selfscale.tracking.store import Client, StoreError
from stores import RESULT, new_store, python, record
from workspaces import runs

RUN = {"task": "sobel", "strategy": "random", "seed": 3, "settings": {}}
# Records as a process does that is killed: one decision, whose delivery never ends.
DIES = """
import sys, time
from pathlib import Path
from selfscale.tracking import delivery
from selfscale.tracking.runs import MinimizationRun
from stores import record

name, until = sys.argv[2], int(sys.argv[3])
real = getattr(MinimizationRun, name)

def late(run, *arguments, **named):
    global until
    until -= 1
    if not until:
        print("here", flush=True)
        time.sleep(60)
    return real(run, *arguments, **named)

setattr(MinimizationRun, name, late)
recorder = delivery.Recorder(
    Path(sys.argv[1]), "minimization", key="a" * 32, task="sobel", strategy="random", seed=3, settings={}
)
for number in (1, 2, 3):
    recorder.record("decision", [Path(sys.argv[1], "snapshot.npz")], record=record(number))
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    (tmp_path / "snapshot.npz").write_bytes(b"weights")
    return new_store(tmp_path)


@pytest.fixture
def away(monkeypatch) -> list[bool]:
    """The store is a server, which answers when its one item is False."""
    state = [True]
    real = delivery.open_store

    def open_store(root: Path) -> Client:
        if state[0]:
            raise StoreError("no server answers")
        return real(root)

    monkeypatch.setattr(delivery, "open_store", open_store)
    monkeypatch.setattr(delivery, "is_remote", lambda uri: True)
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    return state


def decisions(client: Client) -> list[str]:
    return sorted(run.data.tags["decision"] for run in runs(client, "decision"))


def waiting(root: Path) -> list[Path]:
    return [path for folder in outbox.folders(root) for path in folder.iterdir()]


def assert_all_is_there_once(client: Client, root: Path, numbers: list[int], end: str) -> None:
    (parent,) = runs(client, "minimization")
    assert parent.info.status == end
    assert decisions(client) == [str(number) for number in numbers]
    for session in runs(client, "session"):
        assert session.info.status == "FINISHED"
        assert [file.path for file in client.list_artifacts(session.info.run_id)] == ["snapshot.npz"]
    charted = client.get_metric_history(parent.info.run_id, "score")
    assert [point.step for point in charted] == numbers
    assert waiting(root) == []


def test_what_is_recorded_is_delivered_when_the_block_ends(client, tmp_path):
    with Recorder(tmp_path, "minimization", **RUN) as run:
        for number in (1, 2, 3):
            run.record("decision", [tmp_path / "snapshot.npz"], record=record(number))
        run.record("finish", [tmp_path / "snapshot.npz"], result=RESULT)
    assert_all_is_there_once(client, tmp_path, [1, 2, 3], "FINISHED")
    (parent,) = runs(client, "minimization")
    assert parent.data.tags["key"] == run.key


@pytest.mark.parametrize(
    ("error", "end"),
    [(KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED"), (ValueError("a bug"), "FAILED")],
)
def test_how_a_run_ends_when_its_block_does(client, tmp_path, error, end):
    with pytest.raises(type(error)), Recorder(tmp_path, "minimization", **RUN) as run:
        run.record("decision", [tmp_path / "snapshot.npz"], record=record(1))
        raise error
    assert_all_is_there_once(client, tmp_path, [1], end)
    if end == "FAILED":
        assert "a bug" in runs(client, "minimization")[0].data.tags["reason"]


def test_a_block_without_a_result_has_failed(client, tmp_path):
    with Recorder(tmp_path, "minimization", **RUN):
        pass
    assert_all_is_there_once(client, tmp_path, [], "FAILED")


def test_files_are_recorded_as_they_were(client, tmp_path, away):
    with Recorder(tmp_path, "minimization", **RUN) as run:
        run.record("decision", [tmp_path / "snapshot.npz"], record=record(1))
        (tmp_path / "snapshot.npz").unlink()
        away[0] = False
        run.record("finish", result=RESULT)
    assert_all_is_there_once(client, tmp_path, [1], "FINISHED")


def test_a_server_that_is_away_neither_stops_nor_breaks_anything(client, tmp_path, away, caplog):
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), Recorder(tmp_path, "minimization", **RUN) as run:
        for number in (1, 2):
            run.record("decision", [tmp_path / "snapshot.npz"], record=record(number))
        assert time.monotonic() - started < 1
        run.record("finish", result=RESULT)
    assert caplog.messages[0] == "no server answers; until then, records wait in .selfscale/outbox"
    assert caplog.messages[-1] == "3 records wait in .selfscale/outbox; `selfscale deliver` sends them"
    assert len(caplog.messages) == 2
    assert outbox.count(tmp_path) == 3
    assert runs(client, "minimization") == []
    before = time.time()
    time.sleep(0.1)
    assert deliver_abandoned(client, tmp_path) == 3
    assert_all_is_there_once(client, tmp_path, [1, 2], "FINISHED")
    (parent,) = runs(client, "minimization")
    assert parent.info.start_time <= parent.info.end_time <= before * 1000  # as it was, not as it was sent
    assert deliver_abandoned(client, tmp_path) == 0


def test_a_slow_server_is_waited_for_only_so_long(client, tmp_path, away, caplog, monkeypatch):
    away[0] = False
    monkeypatch.setattr(delivery, "PATIENCE", 0.2)
    real, answers = MinimizationRun.decision, []

    def slow(*arguments, **named):
        while not answers:
            time.sleep(0.01)
        real(*arguments, **named)

    monkeypatch.setattr(MinimizationRun, "decision", slow)
    with caplog.at_level(logging.WARNING), Recorder(tmp_path, "minimization", **RUN) as run:
        run.record("decision", [tmp_path / "snapshot.npz"], record=record(1))
        run.record("finish", result=RESULT)
    assert "2 records wait" in caplog.text
    assert deliver_abandoned(client, tmp_path) == 0  # this process is still at it
    answers.append(True)
    run._courier.join(20)
    assert_all_is_there_once(client, tmp_path, [1], "FINISHED")


def test_a_server_that_comes_back_gets_it_all_while_the_run_goes_on(client, tmp_path, away):
    with Recorder(tmp_path, "minimization", **RUN) as run:
        run.record("decision", [tmp_path / "snapshot.npz"], record=record(1))
        time.sleep(0.05)
        away[0] = False
        deadline = time.monotonic() + 20
        while not decisions(client) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert decisions(client) == ["1"]
        run.record("finish", result=RESULT)
    assert_all_is_there_once(client, tmp_path, [1], "FINISHED")


@pytest.mark.parametrize("name", ["create_run", "log_artifact", "log_batch", "set_terminated", "set_tag"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_store_that_fails_anywhere_gets_everything_once(client, tmp_path, monkeypatch, name, call):
    left = call
    real = getattr(Client, name)

    def failing(*arguments, **named):
        nonlocal left
        left -= 1
        if not left:
            raise StoreError("the disk is full")
        return real(*arguments, **named)

    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    with monkeypatch.context() as patch, Recorder(tmp_path, "minimization", **RUN) as run:
        patch.setattr(Client, name, failing)
        for number in (1, 2, 3):
            run.record("decision", [tmp_path / "snapshot.npz"], record=record(number))
        run.record("finish", [tmp_path / "snapshot.npz"], result=RESULT)
    deliver_abandoned(client, tmp_path)  # what failed in the last attempt
    assert_all_is_there_once(client, tmp_path, [1, 2, 3], "FINISHED")


@pytest.mark.parametrize(("name", "until"), [("decision", 1), ("decision", 3), ("_complete", 2)])
def test_a_killed_process_leaves_it_to_the_next(client, tmp_path, monkeypatch, name, until):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    with subprocess.Popen(
        python(DIES, tmp_path, name, str(until)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "here\n"
        deadline = time.monotonic() + 20
        while outbox.count(tmp_path) < 4 - (until if name == "decision" else 1):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert deliver_abandoned(client, tmp_path) == 0  # it lives
        process.send_signal(signal.SIGKILL)
    with Recorder(tmp_path, "minimization", key="a" * 32, **RUN) as again:
        for number in (1, 2, 3, 4):
            again.record("decision", [tmp_path / "snapshot.npz"], record=record(number))
        again.record("finish", result=RESULT)
    assert_all_is_there_once(client, tmp_path, [1, 2, 3, 4], "FINISHED")


def test_a_run_whose_process_was_killed_is_ended(client, tmp_path):
    journal = Journal.new(tmp_path, "k")
    journal.append("minimization", key="k", **RUN)
    journal.append("decision", [tmp_path / "snapshot.npz"], record=record(1))
    journal.release()
    assert deliver_abandoned(client, tmp_path) == 1
    assert_all_is_there_once(client, tmp_path, [1], "KILLED")


def test_cut_off_while_a_finished_journal_is_deleted(client, tmp_path):
    journal = Journal.new(tmp_path, "k")
    journal.append("minimization", key="k", **RUN)
    journal.append("finish", result=RESULT)
    (journal.folder / FIRST).unlink()
    journal.release()
    assert deliver_abandoned(client, tmp_path) == 0
    assert (runs(client, "minimization"), waiting(tmp_path)) == ([], [])


def test_runs_are_delivered_in_the_order_in_which_they_began(client, tmp_path, monkeypatch):
    for key in ("second", "first", "third"):
        journal = Journal.new(tmp_path, key)
        journal.append("baseline", key=key, task="sobel", seed=0, settings={})
        journal.release()
    opened = []
    real = TrackedRun._create
    monkeypatch.setattr(
        TrackedRun, "_create", lambda run, *given: opened.append(run.key) or real(run, *given)
    )
    deliver_abandoned(client, tmp_path)
    assert opened == ["second", "first", "third"]


def test_delivered_again_after_a_kill_nothing_is_double(client, tmp_path):
    """Everything was delivered, but nothing forgotten."""
    journal = Journal.new(tmp_path, "k")
    journal.append("minimization", key="k", **RUN)
    journal.append("decision", [tmp_path / "snapshot.npz"], record=record(1))
    run = deliver(client, journal)
    journal.append("decision", [tmp_path / "snapshot.npz"], record=record(1))
    run._lock.release()
    journal.append("finish", result=RESULT)
    (parent,) = runs(client, "minimization")
    MinimizationRun(client, key="k", **RUN).finish(RESULT, at=journal.read(journal.entries()[-1])[0].at)
    journal.release()
    deliver_abandoned(client, tmp_path)
    assert_all_is_there_once(client, tmp_path, [1], "FINISHED")
    for metric in client.get_run(parent.info.run_id).data.metrics:
        history = client.get_metric_history(parent.info.run_id, metric)
        assert len({(point.step, point.value) for point in history}) == len(history)


def test_another_versions_entries_are_named(client, tmp_path):
    journal = Journal.new(tmp_path, "k")
    (journal.folder / FIRST).write_bytes(b"not a pickle")
    with pytest.raises(UserError, match=f"{FIRST}: cannot be read by this version; delete"):
        deliver(client, journal)
