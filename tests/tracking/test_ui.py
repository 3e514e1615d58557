from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from selfscale.errors import UserError
from selfscale.tracking.store import open_store
from selfscale.tracking.sync import sync_record
from selfscale.tracking.ui import serve_ui
from stores import new_store, python, record, write_minimization

# Ctrl-C and SIGHUP have to work here too: what runs in the background, or under nohup, ignores them.
SERVE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from selfscale.processes import clean_up_when_asked_to_end
from selfscale.tracking.ui import serve_ui

clean_up_when_asked_to_end()
serve_ui(Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_outside_of_a_project_it_says_so_and_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="there is no MLflow store; run this in the project's folder"):
        serve_ui(tmp_path, 5123)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_line(tmp_path):
    new_store(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port}: .*; choose another with --port$"):
            serve_ui(tmp_path, port)


def test_the_pages_of_a_moved_store(tmp_path, monkeypatch, capsys):
    """The server answers at the printed address, shows artifacts, takes runs, and ends with Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    run_id = sync_record(new_store(tmp_path / "before"), write_minimization(Path("record")), None)
    (tmp_path / "before").rename(tmp_path / "after")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = python(SERVE, tmp_path / "after", str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            found = re.fullmatch(
                rf"sobel: (http://127\.0\.0\.1:{port})/#/experiments/(\d+)/runs\?(.+)", address
            )
            assert found, address
            base, experiment_id, query = found.groups()
            charts = process.stdout.readline().strip()
            assert charts.startswith(f"sobel, charts: {base}/#/experiments/{experiment_id}/runs?")
            assert charts.endswith("searchFilter=tags.kind%3D%27minimization%27")
            assert query == "workflowType=machine_learning&viewStateShareKey=selfscale"
            asked = {"experiment_id": experiment_id}
            experiment = requests.get(f"{base}/api/2.0/mlflow/experiments/get", asked, timeout=10).json()
            tags = {tag["key"]: tag["value"] for tag in experiment["experiment"]["tags"]}
            columns = json.loads(tags["mlflow.sharedViewState.selfscale"])["selectedColumns"]
            assert "tags.`macs`" in columns
            assert requests.get(base, timeout=10).ok
            page = f"{base}/get-artifact"
            answer = requests.get(page, {"run_uuid": run_id, "path": "compact.keras"}, timeout=10)
            assert answer.content == b"network"

            monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
            client = open_store(tmp_path / "nowhere")
            other = write_minimization(Path("other"), [record(1)])
            second = sync_record(client, other, None)
            assert client.get_run(second).info.experiment_id == experiment_id
            assert capsys.readouterr().out == ""
            assert not (tmp_path / "nowhere").exists()
            serve_ui(tmp_path / "nowhere", port)
            assert capsys.readouterr().out.splitlines()[0] == address
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with socket.create_server(("127.0.0.1", port)):
        pass
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert open_store(tmp_path / "after").get_run(second).info.status == "FINISHED"


@pytest.mark.parametrize("end", ["its own", "its parent's", "its terminal's"])
def test_no_server_stays_behind(tmp_path, end):
    """A shell starts it, which a SIGKILL ends, or both."""
    new_store(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shell = "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid); child.wait()"
    command = [sys.executable, "-u", "-c", shell, *python(SERVE, tmp_path, str(port))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        own = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline().startswith("models: ")
        started = [own, *own.children(recursive=True)]
        assert len(started) > 2
        if end == "its own":
            own.kill()
        elif end == "its terminal's":
            own.send_signal(signal.SIGHUP)
        else:
            process.kill()
        left = psutil.wait_procs(started, timeout=20)[1]
        for each in (*left, process):  # else a failure waits for them without a limit
            each.kill()
        assert left == []
    with socket.create_server(("127.0.0.1", port)):
        pass
