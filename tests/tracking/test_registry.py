from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import keras
import mlflow.tensorflow
import numpy as np
import pytest

from selfscale.errors import UserError
from selfscale.inference.download import download_version
from selfscale.inference.fast import on_blocks
from selfscale.nn.fcn import build
from selfscale.settings import Registry
from selfscale.tracking import registry
from selfscale.tracking.champions import MEASURED, measured
from selfscale.tracking.registry import OnBlocks, register
from selfscale.tracking.store import Client, open_store
from selfscale.tracking.sync import sync_record
from stores import RESULT, aliases, new_store, python, write_minimization

NAME = "selfscale-sobel"
# A process that cannot import this package, as on another machine.
STOCK = """
import sys
sys.modules["selfscale"] = None
import json, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
images = np.load(sys.argv[2])
import mlflow.tensorflow
model = mlflow.tensorflow.load_model("models:/selfscale-sobel@champion")
served = mlflow.pyfunc.load_model("models:/selfscale-sobel@champion")
example = served.input_example
np.savez(sys.argv[3], loaded=model(images), served=served.predict(images), example=served.predict(example))
print(json.dumps([type(model).__module__, example.shape]))
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def client(root: Path) -> Client:
    return new_store(root)


# Registers in a process of its own, which loads TensorFlow before it waits for a word.
REGISTERS = """
import sys
from pathlib import Path
import mlflow.tensorflow
from selfscale.tracking import registry
from selfscale.settings import Registry
from selfscale.tracking.registry import register
from selfscale.tracking.store import open_store
from stores import RESULT

client = open_store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(register(client, "sobel", Path(sys.argv[2]), RESULT, "", None, Registry()).version)
"""


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> list[Path]:
    """Two small networks in `.keras` files."""
    folder = tmp_path_factory.mktemp("networks")
    paths = [folder / f"{seed}.keras" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        build([2, 1], kernel=3, deviation=0.3, seed=(seed,)).save(path)
    return paths


def finished_run(client: Client, network: Path) -> str:
    folder = write_minimization(network.with_suffix(""), [])
    return sync_record(client, folder, None)


def put(client: Client, path: Path, run_id: str | None, score: float | None = None, **more: object) -> int:
    """Register with another validation score than that of `RESULT`."""
    result = RESULT | more
    if score is not None:
        result["validation"] = {**result["validation"], "final": {"mae": score, "uiqi": 0.8}}
    return register(client, "sobel", path, result, "# The card", run_id, Registry()).version


def test_a_version_says_what_it_is_and_which_run_made_it(client, networks):
    run_id = finished_run(client, networks[0])
    before = client.get_run(run_id).info
    assert put(client, networks[0], run_id) == 1
    version = client.get_model_version(NAME, "1")
    assert version.run_id == run_id
    people = {key: value for key, value in version.tags.items() if key != MEASURED}
    assert people == {"strategy": "random", "seed": "3", "macs": "15%", "test": "mae 0.012"}
    assert measured(version).targets == RESULT["targets"]
    model = client.get_registered_model(NAME)
    assert model.description.startswith("A small network that does what `sobel` does to gray images")
    experiment = client.get_run(run_id).info.experiment_id
    assert version.description.startswith("# The card\n")
    assert f"[`{run_id}`](#/experiments/{experiment}/runs/{run_id})" in version.description
    after = client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    (output,) = after.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"
    assert client.get_logged_model(output.model_id).status == "READY"
    assert aliases(client) == {"champion": 1}


def test_the_same_model_is_registered_once_and_the_alias_follows(client, networks):
    run_id = finished_run(client, networks[0])
    assert put(client, networks[0], run_id) == 1
    assert put(client, networks[0], run_id) == 1
    assert aliases(client) == {"champion": 1}
    assert put(client, networks[1], run_id) == 2
    assert aliases(client) == {"champion": 2, "previous": 1}
    assert put(client, networks[0], run_id) == 1
    assert aliases(client) == {"champion": 1, "previous": 2}
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2


def test_two_processes_at_once_register_a_model_once(client, root, networks):
    command = python(REGISTERS, root, networks[0])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    both = [subprocess.Popen(command, **pipes, env=os.environ | {"PYTHONPATH": path}) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120)[0] for process in both] == ["1\n", "1\n"]
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    assert aliases(client) == {"champion": 1}


def test_of_two_versions_on_a_server_the_first_stays(client, networks, monkeypatch):
    """Another machine registers the same file between the look and the registration."""
    put(client, networks[0], None)
    monkeypatch.setattr(registry, "find", lambda *_: None)
    assert put(client, networks[0], None) == 1
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    assert version.version in ("1", 1)


def test_what_is_registered_is_found_without_tensorflow(client, root, networks):
    put(client, networks[0], None)
    code = (
        "import sys; from pathlib import Path; from selfscale import files\n"
        "from selfscale.tracking import registry; from selfscale.tracking.store import open_store\n"
        "found = registry.find(open_store(Path(sys.argv[1])), sys.argv[2], files.sha256(Path(sys.argv[3])))\n"
        "print(found.version, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    command = python(code, root, NAME, networks[0])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1 False False\n"


def test_only_a_version_that_is_not_worse_becomes_champion(client, networks):
    put(client, networks[0], None, score=0.012)
    standing = register(client, "sobel", networks[1], worse_than(0.012), "", None, Registry())
    assert standing[:4] == (NAME, 2, 1, None)
    assert standing.note == (
        "not champion: validation mae 0.0121 at 125 multiply-accumulates is worse than 0.012 at 125 of "
        "version 1 by registry.rule: smallest; "
        "`selfscale promote sobel --version 2 --force` makes it champion all the same"
    )
    assert aliases(client) == {"champion": 1}
    # Registered again, as after another `dvc repro`, it is no better.
    assert register(client, "sobel", networks[1], worse_than(0.012), "", None, Registry()) == standing


def worse_than(score: float) -> dict:
    return RESULT | {"validation": {**RESULT["validation"], "final": {"mae": score + 0.0001}}}


def test_what_was_measured_on_other_targets_is_not_compared(client, networks):
    put(client, networks[0], None, score=0.012)
    standing = register(
        client, "sobel", networks[1], worse_than(0.012) | {"targets": "another"}, "", None, Registry()
    )
    assert (standing.champion, standing.previous) == (2, 1)
    assert "measured on other images or targets, and not compared" in standing.note


def test_a_run_that_is_gone_is_replaced(client, root, networks):
    run_id = finished_run(client, networks[0])
    shutil.rmtree(root / "mlruns" / "artifacts" / "sobel" / run_id)
    put(client, networks[0], run_id)
    holder = client.get_run(client.get_model_version(NAME, "1").run_id)
    assert holder.info.run_id != run_id
    assert holder.data.tags["kind"] == "registration"
    assert holder.info.status == "FINISHED"


def test_a_version_whose_files_are_gone_is_made_anew(client, root, networks):
    put(client, networks[0], None)
    shutil.rmtree(root / "mlruns" / "artifacts" / "sobel" / "models")
    assert put(client, networks[0], None) == 2
    assert aliases(client) == {"champion": 2, "previous": 1}


def test_no_file_is_one_line(client, tmp_path):
    with pytest.raises(UserError, match=r"none\.keras: is missing"):
        register(client, "sobel", tmp_path / "none.keras", RESULT, "", None, Registry())


def test_a_fast_version_is_one_of_its_own_with_the_plain_network_beside_it(client, networks, tmp_path):
    plain = keras.saving.load_model(networks[0])
    blocked, block = on_blocks(plain, "2x2")
    blocked.save(tmp_path / "fast.keras")
    fast = OnBlocks(tmp_path / "fast.keras", block)
    put(client, networks[0], None)
    standings = [
        register(client, "sobel", networks[0], RESULT, "", None, Registry(), form)
        for form in (fast, fast, None)
    ]
    assert [(each.version, each.champion) for each in standings] == [(2, 2), (2, 2), (1, 1)]
    assert [measured(client.get_model_version(NAME, number)).block for number in "12"] == ["", block]
    images = np.random.default_rng(0).random((2, 17, 23, 1), dtype=np.float32)
    model = mlflow.tensorflow.load_model(client.get_model_version_download_uri(NAME, "2"))
    assert len(model.layers) > len(plain.layers)
    np.testing.assert_allclose(model(images), plain(images), atol=1e-5)
    path = download_version(client, "sobel", "2", tmp_path / "there")  # what `selfscale apply` takes
    assert path.read_bytes() == networks[0].read_bytes()


class Unrelated(keras.layers.Layer):
    """A layer that some module has registered with Keras."""


def test_a_moved_champion_loads_without_this_package(client, root, networks, tmp_path, monkeypatch):
    monkeypatch.setitem(keras.saving.get_custom_objects(), "someone>Unrelated", Unrelated)
    put(client, networks[0], finished_run(client, networks[0]))
    root.rename(tmp_path / "moved to ä")
    moved = open_store(tmp_path / "moved to ä")
    images = np.random.default_rng(0).random((2, 17, 23, 1), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    command = python(STOCK, moved.tracking_uri, tmp_path / "images.npy", tmp_path / "out.npz")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    module, example = json.loads(done.stdout.splitlines()[-1])
    assert module.startswith("keras.")
    expected = keras.saving.load_model(networks[0])(images)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["loaded"], expected, atol=1e-6)
        np.testing.assert_allclose(out["served"], expected, atol=1e-6)
        assert list(out["example"].shape) == example
