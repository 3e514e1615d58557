from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from selfscale.errors import UserError
from selfscale.records import Filter
from selfscale.tracking import owners
from selfscale.tracking.entries import decision_name
from selfscale.tracking.owners import end_stale_runs
from selfscale.tracking.runs import BaselineRun, Dataset, MinimizationRun, TrainingRun
from selfscale.tracking.store import Client, open_store
from selfscale.tracking.system_metrics import Sample
from stores import RESULT, new_store, python, record

STARTED = """
import os, signal, sys, time
from pathlib import Path
from selfscale.tracking.store import open_store
from selfscale.tracking.runs import MinimizationRun
from stores import record

run = MinimizationRun(open_store(Path(sys.argv[1])), task="sobel", strategy="random", seed=3, settings={})
run.decision(record(1), [Path(sys.argv[2])])
print(run.run_id, run.key, flush=True)
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return new_store(tmp_path)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.npz"
    path.write_bytes(b"weights")
    return path


def started(client: Client, key: str | None = None, *, strategy: str = "random", settings=None, dataset=None):
    return MinimizationRun(
        client,
        task="sobel",
        strategy=strategy,
        seed=3,
        settings=settings or {"network": {"widths": [5, 5]}},
        dataset=dataset,
        key=key,
    )


def status(client: Client, run_id: str) -> str:
    return client.get_run(run_id).info.status


def runs(client: Client, kind: str) -> list:
    ids = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(ids, f"tags.kind = '{kind}'", order_by=["attributes.start_time"])


def charted(client: Client, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, metric)]


def test_a_minimization_is_a_run_with_decisions_with_sessions(client, snapshot):
    run = started(client)
    run.decision(record(1), [snapshot])
    run.decision(record(2, accepted=False), [snapshot])
    run.decision(record(3, filters=()), [snapshot])
    run.finish(RESULT, [snapshot])
    (parent,) = runs(client, "minimization")
    decisions = runs(client, "decision")
    assert parent.info.run_name == "random - seed 3"
    assert [r.info.run_name for r in sorted(decisions, key=lambda r: r.info.run_name)] == [
        "1 disable layer 1 filter 3 - accepted",
        "2 disable layer 1 filter 3 - reverted",
        "3 train last session - accepted",
    ]
    for decision in decisions:
        tags = decision.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["task"], tags["strategy"], tags["seed"]) == ("sobel", "random", "3")
        (session,) = (
            r for r in runs(client, "session") if r.data.tags["mlflow.parentRunId"] == decision.info.run_id
        )
        assert charted(client, session.info.run_id, "loss") == [(20, 0.5), (40, 0.25)]
        assert charted(client, session.info.run_id, "score") == [(20, 0.3), (40, 0.2)]
        assert [file.path for file in client.list_artifacts(session.info.run_id)] == ["snapshot.npz"]
        assert session.data.params["strategy"] == "random"
    every = [parent, *decisions, *runs(client, "session")]
    assert {r.info.status for r in every} == {"FINISHED"}


def test_what_a_decision_says(client):
    run = started(client)
    run.decision(record(2, accepted=False))
    run.finish(RESULT, [])
    (decision,) = runs(client, "decision")
    assert decision.data.tags["verdict"] == "reverted"
    assert decision.data.params == {
        "task": "sobel",
        "strategy": "random",
        "seed": "3",
        "decision": "2",
        "verdict": "reverted",
        "alteration": "disable",
        "tried": "layer 1 filter 3",
        "layer": "1",
        "filter": "3",
        "selection_score": "0.75",
        "started_from": "1",
        "reason": "above the limit",
    }
    assert decision.data.metrics == {
        "score": 0.3,
        "limit": 0.21,
        "relative_loss": 0.5,
        "relative_loss_bound": 0.7,
        "score_before_training": 0.4,
        "selection_score": 0.75,
        "filters_kept": 8,
        "layers_kept": 2,
        "parameters": 898,
        "macs_per_pixel": 798,
        "seconds": 1.5,
        "mae": 0.2,
        "uiqi": 0.8,
    }
    assert decision.info.end_time - decision.info.start_time == 1500


def test_the_minimizations_own_run_shows_it_all(client, snapshot):
    run = started(client, dataset=Dataset("sample", "0123456789abcdef" * 4))
    run.decision(record(1))
    run.decision(record(2, accepted=False))
    run.finish(RESULT, [snapshot])
    parent = client.get_run(run.run_id)
    assert charted(client, run.run_id, "score") == [(1, 0.2), (2, 0.3)]
    assert charted(client, run.run_id, "limit") == [(1, 0.21), (2, 0.21)]
    assert charted(client, run.run_id, "filters_kept")[:2] == [(1, 9), (2, 8)]
    metrics = parent.data.metrics
    assert (metrics["filters_initial"], metrics["filters_kept"], metrics["filters_kept_1"]) == (10, 3, 1)
    assert (metrics["parameters"], metrics["macs_per_pixel"]) == (130, 125)
    assert (metrics["test_initial_mae"], metrics["test_final_mae"]) == (0.013, 0.012)
    assert (metrics["accepted"], metrics["reverted"]) == (1, 1)
    assert parent.data.params == {"network.widths": "[5, 5]"}
    note = parent.data.tags["mlflow.note.content"]
    assert "Filters 5, 5 → 2, 1" in note
    assert "| test | mae | 0.013 | 0.012 |" in note
    (used,) = parent.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("sample", ("0123456789abcdef" * 3)[:36])
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["snapshot.npz"]


def test_a_name_of_many_filters_is_cut():
    filters = tuple(Filter(0, index) for index in range(50))
    name = decision_name(record(1, filters=filters))
    assert name.startswith("1 disable layer 0 filter 0, layer 0 filter 1,")
    assert name.endswith("... - accepted")
    assert len(name) < 140


def test_more_than_mlflow_takes_at_once(client):
    settings = {"section": {f"key{i}": i for i in range(250)}, "long": "x" * 10_000, "none": None}
    result = RESULT | {"curve": {f"point{i}": i for i in range(1200)}}
    run = started(client, settings=settings)
    run.finish(result)
    baseline = BaselineRun(client, task="sobel", seed=3, settings={})
    baseline.finish(record(1).session, {}, "n" * 10_000)
    data = client.get_run(run.run_id).data
    assert len(data.params) == 252
    assert data.params["section.key249"] == "249"
    assert data.params["none"] == "null"
    assert data.metrics["curve_point1199"] == 1199


def test_scores_that_are_no_numbers_are_logged(client):
    broken = record(1, accepted=False)
    object.__setattr__(broken, "score", float("nan"))
    object.__setattr__(broken, "metrics", {"mae": float("inf")})
    run = started(client)
    run.decision(broken)
    run.finish(RESULT, [])
    assert status(client, run.run_id) == "FINISHED"


def test_the_commit_is_named(client, tmp_path, monkeypatch):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout

    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    run = started(client)
    run.finish(RESULT, [])
    assert (
        client.get_run(run.run_id).data.tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD").strip()
    )


def test_a_training(client, snapshot):
    begun = time.time() - 60
    result = {"task": "sobel", "seed": 3, "filters": [5, 5], "test": {"mae": 0.01}, "ended": "stagnated"}
    session = record(1).session
    run = TrainingRun(client, task="sobel", seed=3, settings={"a": 1}, started=begun)
    run.finish(session, result, "what it says", [snapshot])
    run_id = run.run_id
    training = client.get_run(run_id)
    assert (training.info.run_name, training.info.status) == ("training - seed 3", "FINISHED")
    assert training.data.tags["kind"] == "training"
    assert "Python" in training.data.tags["system"]
    assert training.info.start_time == round(begun * 1000)
    assert charted(client, run_id, "loss") == [(20, 0.5), (40, 0.25)]
    assert training.data.metrics["test_mae"] == 0.01
    assert [file.path for file in client.list_artifacts(run_id)] == ["snapshot.npz"]


def test_a_killed_minimization_goes_on_in_its_own_run(client, snapshot, monkeypatch):
    run = started(client)
    run.decision(record(1), [snapshot])
    run.decision(record(2), [snapshot])
    run.kill()
    assert status(client, run.run_id) == "KILLED"
    again = started(client, run.key)
    assert status(client, run.run_id) == "RUNNING"
    for number in (1, 2, 3):
        again.decision(record(number), [snapshot])
    again.decision(record(3), [snapshot])
    again.finish(RESULT, [])
    assert again.run_id == run.run_id
    assert status(client, run.run_id) == "FINISHED"
    assert sorted(r.data.tags["decision"] for r in runs(client, "decision")) == ["1", "2", "3"]
    assert len(runs(client, "session")) == 3
    assert [step for step, _ in charted(client, run.run_id, "score")] == [1, 2, 3]
    assert len(runs(client, "minimization")) == 1


@pytest.mark.parametrize("call", range(1, 9))
def test_a_decision_that_was_cut_off_anywhere_is_logged_whole_and_once(client, snapshot, monkeypatch, call):
    """Stop before the n-th write of decision 2; take the run up again; nothing is missing or double."""
    run, writes = started(client), iter(range(1, 100))

    def counting(method):
        def counted(*arguments, **named):
            if next(writes) == call:
                raise KeyboardInterrupt
            return method(*arguments, **named)

        return counted

    run.decision(record(1), [snapshot])
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        for name in ("create_run", "log_artifact", "log_batch", "set_terminated"):
            patch.setattr(client, name, counting(getattr(client, name)))
        run.decision(record(2), [snapshot])
    run.kill()
    again = started(client, run.key)
    again.decision(record(2), [snapshot])
    again.finish(RESULT, [])
    decisions, sessions = runs(client, "decision"), runs(client, "session")
    assert sorted(r.data.tags["decision"] for r in decisions) == ["1", "2"]
    assert sorted(r.data.tags["decision"] for r in sessions) == ["1", "2"]
    assert {r.info.status for r in decisions + sessions} == {"FINISHED"}
    assert charted(client, run.run_id, "limit") == [(1, 0.21), (2, 0.21)]


def test_a_long_session_has_what_the_machine_did_and_runs_the_state_of_dvc(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "dizzy-mole")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'")
    run = started(client)
    samples = [Sample(1e9 + 5 * n, {"cpu_utilization_percentage": 50.0 + n}) for n in range(3)]
    run.decision(record(1), system=samples)
    run.decision(record(2))
    first, second = runs(client, "session")
    name = "system/cpu_utilization_percentage"
    history = client.get_metric_history(first.info.run_id, name)
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (n, 50.0 + n, 1_000_000_000_000 + 5000 * n) for n in range(3)
    ]
    assert not any(metric.startswith("system/") for metric in second.data.metrics)
    tags = client.get_run(run.run_id).data.tags
    assert tags["dvc.experiment"] == "dizzy-mole"
    assert tags["dvc.lock"] == hashlib.sha256(b"schema: '2.0'").hexdigest()
    assert "dvc.baseline" not in tags


@pytest.fixture
def drawn(tmp_path: Path) -> list[Path]:
    """Two pictures of a network, as of two images."""
    paths = [tmp_path / "drawn" / f"{number}.png" for number in (1, 2)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        Image.new("P", (300, 400), number).save(path)
    return paths


def images(client: Client, run_id: str) -> list[tuple[str, str, str]]:
    """Key, step and kind of each picture of a minimization, which has a run below it for them."""
    assert client.list_artifacts(run_id, "images") == []
    (holder,) = runs(client, "pictures")
    assert holder.data.tags["mlflow.parentRunId"] == run_id
    assert holder.data.tags["mlflow.loggedImages"] == "True"
    assert holder.data.params == {}  # the pages would show them above each picture
    assert holder.info.status == "FINISHED"
    found = []
    for file in client.list_artifacts(holder.info.run_id, "images"):
        key, _, step, *_ = Path(file.path).name.split("+")
        found.append((key, step, Path(file.path).suffix))
    return sorted(found)


def expected_images(*steps: int) -> list[tuple[str, str, str]]:
    keys = ("network on image 1", "network on image 2")
    return sorted((key, str(n), kind) for key in keys for n in steps for kind in (".png", ".webp"))


def test_pictures_are_logged_by_image_and_decision_once(client, drawn):
    network = {"score": 0.19, "filters_kept": (5, 5), "parameters": 900, "macs_per_pixel": 800.0}
    run = started(client)
    run.initial(drawn, **network)
    run.decision(record(1))
    run.pictures(1, drawn)
    run.pictures(1, drawn)
    run.kill()
    again = started(client, run.key)
    again.initial(drawn, **network)
    again.decision(record(1))
    again.pictures(1, drawn)
    again.decision(record(2, accepted=False))
    again.decision(record(3, filters=()))
    again.pictures(3, drawn)
    again.finish(RESULT, [])
    assert images(client, run.run_id) == expected_images(0, 1, 3)
    assert charted(client, run.run_id, "score") == [(0, 0.19), (1, 0.2), (2, 0.3), (3, 0.2)]
    assert charted(client, run.run_id, "filters_kept")[:4] == [(0, 10), (1, 9), (2, 8), (3, 7)]
    assert charted(client, run.run_id, "kept/score") == [(0, 0.19), (1, 0.2), (3, 0.2)]
    assert sorted(charted(client, run.run_id, "kept/score_by_filters")) == [(7, 0.2), (9, 0.2), (10, 0.19)]


@pytest.mark.parametrize("call", range(1, 7))
def test_pictures_that_were_cut_off_anywhere_are_logged_whole_and_once(client, drawn, monkeypatch, call):
    """Stop before the n-th write of two pictures; take the run up again."""
    run, writes = started(client), iter(range(1, 100))

    def counting(method):
        def counted(*arguments, **named):
            if next(writes) == call:
                raise KeyboardInterrupt
            return method(*arguments, **named)

        return counted

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        for name in ("log_artifact", "set_tag"):
            patch.setattr(client, name, counting(getattr(client, name)))
        run.pictures(4, drawn)
    run.kill()
    again = started(client, run.key)
    again.pictures(4, drawn)
    again.finish(RESULT, [])
    assert images(client, run.run_id) == expected_images(4)


def test_the_description_has_words_and_a_picture(client, tmp_path, drawn):
    run = started(client)
    picture = drawn[0].rename(tmp_path / "network.png")
    run.finish(RESULT, [picture])
    words, image, *_ = client.get_run(run.run_id).data.tags["mlflow.note.content"].split("\n\n")
    assert words == (
        "`random`, seed 3, found a network for sobel with 3 filters in 2 hidden layers, "
        "from 10 filters in 2: 15% of the multiply-accumulates. "
        "Its mae on the test images is 0.012, the initial network's 0.013 (-8%); lower is better."
    )
    # Relative to where MLflow's pages are; they show no picture that is data in the text itself.
    assert image == (f"![The network that was found](get-artifact?path=network.png&run_uuid={run.run_id})")
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["network.png"]


def test_another_minimizations_run_is_not_taken_up(client):
    run = started(client)
    run.finish(RESULT, [])
    for former in (run.key, "0" * 32):
        other = started(client, former, strategy="cosine")
        other.finish(RESULT, [])
        assert other.run_id not in (run.run_id, former)


def test_a_run_has_one_writer(client, monkeypatch):
    monkeypatch.setattr(owners, "OWN_SECONDS", 0.1)
    run = started(client)
    with pytest.raises(UserError, match=f"{run.run_id}: another process is writing it"):
        started(client, run.key)
    run.finish(RESULT, [])


def test_a_sigkill_leaves_nothing_running(client, tmp_path, snapshot, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    code = STARTED + "run.client.set_terminated = lambda *a: time.sleep(60)\nrun.decision(record(2))"
    with subprocess.Popen(python(code, tmp_path, snapshot), stdout=subprocess.PIPE, text=True) as process:
        run_id, key = process.stdout.readline().split()
        living = started(client)
        deadline = time.monotonic() + 20
        while len(runs(client, "session")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert end_stale_runs(client) == []
        assert {status(client, run_id), status(client, living.run_id)} == {"RUNNING"}
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(end_stale_runs(client)) == 3  # with the halves of decision 2
        assert status(client, living.run_id) == "RUNNING"
        living.finish(RESULT, [])
    assert status(client, run_id) == "KILLED"
    assert not list((tmp_path / "mlruns" / "locks").iterdir())
    again = started(client, key)
    again.decision(record(2), [snapshot])
    again.finish(RESULT, [])
    assert sorted(r.data.tags["decision"] for r in runs(client, "decision")) == ["1", "2"]
    assert {
        r.info.status for kind in ("minimization", "decision", "session") for r in runs(client, kind)
    } == {"FINISHED"}


def test_a_new_run_ends_stale_ones_of_its_task(client):
    stale = started(client)
    stale._lock.release()  # as the system does when the process dies
    run = started(client)
    assert status(client, stale.run_id) == "KILLED"
    run.finish(RESULT, [])


def test_runs_in_a_moved_checkout_go_on(client, tmp_path, snapshot):
    run = started(client)
    run.decision(record(1), [snapshot])
    run.kill()
    (tmp_path / "mlruns").rename(tmp_path / "mlruns.away")
    (tmp_path / "moved").mkdir()
    (tmp_path / "mlruns.away").rename(tmp_path / "moved" / "mlruns")
    moved = open_store(tmp_path / "moved")
    again = started(moved, run.key)
    again.decision(record(2), [snapshot])
    again.finish(RESULT, [snapshot])
    for session in runs(moved, "session"):
        assert [file.path for file in moved.list_artifacts(session.info.run_id)] == ["snapshot.npz"]
    assert not (tmp_path / "mlruns").exists()
