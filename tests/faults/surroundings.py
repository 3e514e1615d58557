"""Commands in surroundings drawn by lot: settings of Keras, locale and terminal; broken servers."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from selfscale.errors import LONGEST
from workspaces import JOB, change_params, contents, minimized_project, selfscale

SECRET = "s3cr3t"
LIMIT = 90.0  # seconds that a command may take, whatever a server does
NETWORK = str(JOB.output / "compact.keras")
PROBLEMS = 1  # the exit code of `doctor` with something to mend
# What reads and writes something of every kind, and takes seconds.
COMMANDS = (
    ("doctor",),
    ("inputs",),
    ("prepare",),
    ("targets", JOB.task),
    ("budget",),
    ("compare",),
    ("curve", JOB.task),
    ("register",),
    ("sync",),
    ("apply", f"{JOB.task}@champion", "photos", "--out", "applied"),
    ("apply", NETWORK, "photos/0.png", "--out", "applied"),
    ("export", NETWORK, "--to", "onnx", "--out", "network.onnx"),
    ("visualize", NETWORK, "photos/0.png", "--out", "drawn"),
    ("pick", JOB.task, "--max-macs", "100000"),
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "KERAS_BACKEND": ("torch", "jax", "tensorflow", "nonsense"),
    "PYTHONIOENCODING": ("latin-1", "ascii", "utf-8", "cp1252"),
    "LC_ALL": ("C", "POSIX", "C.UTF-8", "xx_YY"),
    "PYTHONUTF8": ("0", "1"),
    "TERM": ("dumb", "xterm", "", "nonsense"),
    "NO_COLOR": ("1",),
    "COLUMNS": ("1", "40", "300", "wide"),
    "TZ": ("Asia/Tokyo", "nonsense"),
    "MPLBACKEND": ("TkAgg", "agg"),
    "TF_CPP_MIN_LOG_LEVEL": ("0", "3"),
    "TF_ENABLE_ONEDNN_OPTS": ("0", "1"),
    "CUDA_VISIBLE_DEVICES": ("", "7"),
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": ("true",),
    "MLFLOW_EXPERIMENT_NAME": ("other",),
    "MLFLOW_RUN_ID": ("0123456789abcdef0123456789abcdef",),
    "DVC_NO_ANALYTICS": ("1",),
}
KERAS_FILES = (
    "{}",
    "[]",
    "{",
    '{"backend": "torch", "image_data_format": "channels_first", "floatx": "float16"}',
    '{"floatx": "float64", "epsilon": 0.1}',
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"<html>sign in</html>",
    b'{"experiments": 7}',
    b'{"runs": [{}]}',
    b"\xff\x00",
)
STATUS = (200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 500, 503)


@functools.cache
def compared_project() -> Path:
    """A project of one network with its baseline and report, to be copied."""
    folder = Path(tempfile.mkdtemp()) / "project"
    atexit.register(shutil.rmtree, folder.parent)
    shutil.copytree(minimized_project(), folder)
    change_params(
        folder / "params.yaml",
        {"runs.tasks": [JOB.task], "runs.strategies": [JOB.strategy], "runs.seeds": [0]},
    )
    for words in (("budget",), ("baseline", JOB.task, "--seed", "0"), ("compare",), ("register",)):
        done = selfscale(folder, *words)
        assert done.returncode == 0, done.stderr
    return folder


def check_settings_of_the_user(rng: np.random.Generator) -> str:
    """A command under some settings of the user's comes to the same files as without them."""
    chosen = {name: str(rng.choice(values)) for name, values in SETTINGS.items() if rng.random() < 0.3}
    words = COMMANDS[rng.integers(len(COMMANDS))]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name, "keras")
        home.mkdir()
        (home / "keras.json").write_text(str(rng.choice(KERAS_FILES)))
        told, made = run(Path(name), words, chosen | {"KERAS_HOME": str(home)})
    if told != "done":
        return f"{' '.join(words)} under {chosen}: {told}"
    return "done" if made == plainly(words) else f"{' '.join(words)} under {chosen}: other files"


@functools.cache
def plainly(words: tuple[str, ...]) -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        told, made = run(Path(name), words, {})
        assert told == "done", told
        return made


def check_server(rng: np.random.Generator) -> str:
    """A command with a store on a broken server ends soon, in one line, without the password."""
    words = COMMANDS[rng.integers(len(COMMANDS))]
    seed = int(rng.integers(2**31))
    with tempfile.TemporaryDirectory() as name, broken_server(seed) as port:
        address = f"http://user:{SECRET}@127.0.0.1:{port}"
        told, _ = run(Path(name), words, {"MLFLOW_TRACKING_URI": address})
    return told if told in ("done", "refused") else f"{' '.join(words)}, server {seed}: {told}"


def run(folder: Path, words: tuple[str, ...], settings: Mapping[str, str]) -> tuple[str, Mapping[str, bytes]]:
    """What became of a command in a copy of the project, and the files of its results."""
    project = shutil.copytree(compared_project(), folder / "project")
    command = [str(Path(sys.executable).with_name("selfscale")), *words]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"more than {LIMIT:g} seconds", {}
    results = {
        name: content
        for part in ("data", "models", "reports/figures", "applied", "drawn")
        for name, content in (contents(project / part) if (project / part).exists() else {}).items()
    }
    return verdict(done), results


def verdict(done: subprocess.CompletedProcess[str]) -> str:
    """`done`, `refused`, or in words what must not be."""
    said, last = done.stdout + done.stderr, (done.stderr.splitlines() or [""])[-1]
    for sign in ("Traceback", SECRET, "\x1b", "Warning"):
        if sign in said:
            return f"{sign!r} in {said[-300:]}"
    if done.returncode in (0, PROBLEMS):
        return "done"
    if done.returncode == 2 and last.startswith("error: ") and len(last) <= LONGEST + 100:
        return "refused"
    return f"exit code {done.returncode}: {said[-300:]}"


@contextlib.contextmanager
def broken_server(seed: int) -> Iterator[int]:
    """A server whose every answer is drawn by lot; its port."""

    class Handler(BaseHTTPRequestHandler):
        rng = np.random.default_rng(seed)

        def answer(self) -> None:
            rng = self.rng
            if self.path == "/health":
                body, status = b"OK", 200
            else:
                body, status = BODIES[rng.integers(len(BODIES))], int(rng.choice(STATUS))
            if rng.random() < 0.05:
                time.sleep(7)
            if rng.random() < 0.1:
                return  # without a word
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body) + int(rng.random() < 0.1)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # the command hung up
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
