"""docs/serving.md, as it stands there: the registered network without this package, loaded and served."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from pages import CHECKOUT, Block, blocks
from selfscale.nn.fcn import build
from selfscale.settings import Registry
from selfscale.tracking.registry import register
from stores import RESULT, new_store

PAGE = CHECKOUT / "docs" / "serving.md"
START_SECONDS = 180
SEED = 6  # of a network that makes more than nothing of the photograph


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Of a machine where this package is not installed; MLflow's command is."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "selfscale.py").write_text("raise ImportError('selfscale is not installed')\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(hidden)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A registered network, and a photograph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("serving") / "project"
        client = new_store(root)
        build([2, 2], kernel=3, deviation=0.6, seed=(SEED,)).save(root / "network.keras")
        register(client, "sobel", root / "network.keras", RESULT, "# The card", None, Registry())
    noise = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "photo.jpg")
    return root


def run(words: list[str], project: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_load_it_without_this_package(project, environment):
    hidden = "try:\n    import selfscale\nexcept ImportError:\n    print('alone')\n"
    found = [
        block.code
        for page in ("docs/use.md", "docs/serving.md")
        for block in blocks(CHECKOUT / page)
        if "mlflow.tensorflow.load_model" in block.code
    ]
    assert len(found) == 2
    printed = run([sys.executable, "-c", "\n".join([hidden, *found])], project, environment)
    assert printed.startswith("alone\n")
    assert printed.count("(2, 481, 321, 1)\n") == 2


@pytest.fixture(scope="module")
def served(project: Path, environment: dict[str, str]) -> Iterator[str]:
    """The page's section, followed up to the running server; its address instead of the page's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (command,) = (block.code for block in blocks(PAGE, "Serve it") if "models serve" in block.code)
    script = command.replace("5001", str(port)).replace("mlflow models", "exec mlflow models")
    with (project / "server.log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", script],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (project / "server.log").read_text()
            try:
                if requests.get(f"http://127.0.0.1:{port}/ping", timeout=1).ok:
                    break
            except requests.RequestException:
                time.sleep(0.2)
        yield str(port)
    finally:
        with suppress(ProcessLookupError):  # it did not start
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def requests_of(page: list[Block], project: Path) -> list[str]:
    """Write the section's files; its commands after the one that starts the server."""
    for block in page:
        if block.language == "python":
            (project / block.file).write_text(block.code, encoding="utf-8")
    return [block.code for block in page if block.language == "bash"][1:]


@pytest.mark.server
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_gets_what_the_network_makes_of_a_photograph(project, environment, served):
    import keras

    of_a_file, smallest = requests_of(blocks(PAGE, "Serve it"), project)
    run(["bash", "-ec", of_a_file.replace("5001", served)], project, environment)
    network = keras.saving.load_model(project / "network.keras")
    with Image.open(project / "photo.jpg") as photo:
        image = np.asarray(photo.convert("L"), dtype="float32") / 255
    expected = np.clip(np.asarray(network(image[None, ..., None]))[0, ..., 0], 0, 1) * 255
    with Image.open(project / "edges.png") as edges:
        assert edges.mode == "L"
        np.testing.assert_allclose(np.asarray(edges), expected, atol=1)
    assert expected.std() > 5
    answer = run(["bash", "-ec", smallest.replace("5001", served)], project, environment)
    assert answer.startswith('{"predictions": [[[[')


@pytest.mark.server
def test_what_is_no_image_is_refused(served):
    answer = requests.post(
        f"http://127.0.0.1:{served}/invocations", json={"inputs": [[0, 0.5, 1]]}, timeout=60
    )
    assert answer.status_code == 400
    assert "does not match expected shape (-1, -1, -1, 1)" in answer.json()["message"]
