"""MLflow's own pages on the project's store, on 127.0.0.1 only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import requests
from mlflow.entities import Experiment

from selfscale.errors import UserError, redact
from selfscale.tracking.store import Client, is_remote, open_existing, store_folder
from selfscale.tracking.sync import sync_project

HOST = "127.0.0.1"
START_SECONDS = 120.0
# The server ends with this process, however that ends: then a pipe from it is closed. Its worker is in the
# same group.
GUARD = """
import os, signal, subprocess, sys, threading

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when the server has ended
threading.Thread(target=lambda: (sys.stdin.read(), os.killpg(0, signal.SIGKILL)), daemon=True).start()
sys.exit(server.wait())
"""
STOP_SECONDS = 5.0
# Without these, MLflow opens on its pages for language models, and shows the newest 100 runs of any kind.
MACHINE_LEARNING = "workflowType=machine_learning"
FILTER = "tags.kind='minimization'"
CHARTS = f"{MACHINE_LEARNING}&compareRunsMode=CHART&searchFilter={quote(FILTER)}"
# A view of the table of runs, as MLflow's own button "Share" saves it in a tag of the experiment.
VIEW = "selfscale"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = ("tags.`macs`", "tags.`test`", "tags.`validation`", "params.`changed`", "params.`experiment`")


def serve_ui(root: Path = Path(), port: int = 5000) -> None:
    """Serve until Ctrl-C or the terminal's end; prints the addresses that open on each task's minimizations.

    If MLFLOW_TRACKING_URI names a server, there is nothing to serve, and its addresses are printed.

    Raises:
        UserError: the port is taken, or there is no store, or it cannot be opened.
    """
    client, parent = open_existing(root), os.getppid()
    if is_remote(client.tracking_uri) or os.access(root, os.W_OK):
        sync_project(root)
    if is_remote(client.tracking_uri):
        print_addresses(client, client.tracking_uri.rstrip("/"))
        return
    check_port(port)
    server = start_server(client, port)
    try:
        wait_for(server, port)
        print_addresses(client, f"http://{HOST}:{port}")
        while server.poll() is None:
            if os.getppid() != parent and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                return  # who started it is gone, and did not say that it may stay (nohup)
            time.sleep(0.5)
        raise UserError(f"MLflow's server has ended with exit code {server.returncode}")
    except KeyboardInterrupt:
        pass
    finally:
        stop(server)


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UserError(f"port {port}: {reason}; choose another with --port") from error


def start_server(client: Client, port: int) -> subprocess.Popen[bytes]:
    """One worker and no job runners: 0.5 GB of memory instead of 2.9."""
    options = {
        "--backend-store-uri": client.tracking_uri,
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level warning",
    }
    if folder := store_folder(client):
        options["--default-artifact-root"] = (folder / "artifacts").as_uri()
    words = [word for option in options.items() for word in option]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            GUARD,
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--no-serve-artifacts",
            *words,
        ],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Ctrl-C on the terminal shall reach it, and its worker, through `stop` only.
        start_new_session=True,
    )


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers; UserError if it ends, or takes longer than two minutes."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"http://{HOST}:{port}/health", timeout=1)
            return
        except requests.RequestException:
            time.sleep(0.2)
    raise UserError(f"MLflow's server does not start (exit code {server.poll()})")


def print_addresses(client: Client, base: str) -> None:
    base = redact(base)
    for experiment in client.search_experiments():
        if experiment.experiment_id != "0":  # MLflow's own, which stays empty
            share_view(client, experiment)
            runs = f"{base}/#/experiments/{experiment.experiment_id}/runs"
            print(f"{experiment.name}: {runs}?{MACHINE_LEARNING}&viewStateShareKey={VIEW}")
            print(f"{experiment.name}, charts: {runs}?{CHARTS}")
    print(f"models: {base}/#/models?{MACHINE_LEARNING}", flush=True)


def share_view(client: Client, experiment: Experiment) -> None:
    """Have the table of a task's minimizations show what they came to; MLflow's own has no such columns."""
    view = {"searchFilter": FILTER, "selectedColumns": COLUMNS}
    client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, json.dumps(view))


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its worker; an open page can hold up the polite way."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is None:
            os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
