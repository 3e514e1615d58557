from __future__ import annotations

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from selfscale.errors import UserError
from selfscale.inference import load as models
from selfscale.nn.fcn import build
from selfscale.settings import Registry
from selfscale.tracking.registry import register
from selfscale.tracking.store import Client
from selfscale.tracking.sync import sync_record
from stores import RESULT, new_store, write_minimization, write_training


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """The working directory, with two networks and no store."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b")):
        Path(name).mkdir()
        build([2, 1], kernel=3, deviation=0.3, seed=(seed,)).save(f"{name}/compact.keras")
        Path(name, "result.json").write_text(f'{{"task": "{name}"}}')
    return tmp_path


@pytest.fixture
def store(project: Path) -> Client:
    """With `a` as version 1, and `b` as version 2 and champion."""
    client = new_store(project)
    for name in ("a", "b"):
        register(client, "sobel", Path(name, "compact.keras"), RESULT, "", None, Registry())
    return client


def found(words: str) -> str:
    """Which of the two networks that is."""
    with models.find(words) as path:
        model = models.load(path, words)
    image = np.random.default_rng(0).random((1, 9, 9, 1), dtype=np.float32)
    outputs = {name: keras.saving.load_model(f"{name}/compact.keras")(image) for name in ("a", "b")}
    (name,) = (name for name, output in outputs.items() if np.array_equal(output, model(image)))
    return name


def refused(words: str, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        found(words)
    assert "\n" not in str(error.value)
    for part in (words, *parts):
        assert part in str(error.value)


def test_files_and_folders(project):
    assert [found(words) for words in ("a/compact.keras", "b", str(project / "a"))] == ["a", "b", "a"]


def test_versions_and_aliases(store, capfd):
    words = {"sobel@1": "a", "sobel@2": "b", "sobel@champion": "b", "sobel@previous": "a"}
    capfd.readouterr()
    assert {name: found(name) for name in words} == words
    assert capfd.readouterr() == ("", "")  # no bar of MLflow's


def test_versions_as_the_registry_names_them(store):
    words = {
        "selfscale-sobel@champion": "b",
        "selfscale-sobel@1": "a",
        "models:/selfscale-sobel@previous": "a",
        "models:/selfscale-sobel/2": "b",
    }
    assert {name: found(name) for name in words} == words
    assert {models.task_of(name, Path("x/model.keras")) for name in words} == {"sobel"}
    with pytest.raises(UserError, match="sobel@3: 'sobel' has no such version; valid: champion, previous"):
        found("models:/selfscale-sobel/3")
    refused("models:/selfscale-sobel", "TASK@ALIAS")


def test_a_run_has_the_files_beside_its_network(store):
    record = write_minimization(Path("record"), [])
    shutil.copy("b/compact.keras", record)
    run_id = sync_record(store, record, None)
    assert found(run_id) == "b"
    with models.find(run_id) as path:
        assert (path.parent / "result.json").read_bytes() == (record / "result.json").read_bytes()
    assert not path.exists()


def test_a_run_that_only_holds_a_registered_model(store):
    assert found(store.get_model_version("selfscale-sobel", "1").run_id) == "a"


def test_a_run_without_a_network(store):
    run_id = sync_record(store, write_training(Path("record")), None)
    refused(run_id, "'training - seed 3' has no network")
    store.delete_run(run_id)
    refused(run_id, "there is no such run")
    refused("0" * 32, "there is no such run")


def test_what_is_not_registered_lists_what_is(store):
    refused("sobell@champion", "registered: sobel@champion, sobel@previous")
    refused("sobel@best", "valid: champion, previous, 1, 2")
    refused("sobel@3", "valid: champion, previous, 1, 2")
    refused("sobel", "TASK@ALIAS", "registered: sobel@champion, sobel@previous")


def test_a_version_whose_files_are_gone(store, project):
    for path in (project / "mlruns" / "artifacts").rglob("MLmodel"):
        path.unlink()
    refused("sobel@1", "its files are gone")


def test_the_task_is_known_from_the_name_or_from_the_result(project):
    assert models.task_of("sobel@champion", Path("x/model.keras")) == "sobel"
    assert models.task_of("b", Path("b/compact.keras")) == "b"
    assert models.task_of("c.keras", Path("c.keras")) is None
    Path("result.json").write_text("[1]")
    assert models.task_of("c.keras", Path("c.keras")) is None


@pytest.mark.parametrize("words", ["sobel@champion", "0" * 32, "sobel"])
def test_no_store_is_created(words, project):
    refused_words = "mlruns/mlflow.db: there is no MLflow store"
    with pytest.raises(UserError, match=re.escape(refused_words)):
        found(words)
    assert not (project / "mlruns").exists()


def test_what_is_no_such_file(project):
    refused("c/compact.keras", "there is no such file")
    refused("c.keras", "there is no such file")
    Path("c").mkdir()
    refused("c", "has no compact.keras")
    for name, content in (("d.keras", "text"), ("d.txt", "text")):
        Path(name).write_text(content)
        refused(name, "is no Keras model that can be loaded")


def test_other_models(project):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs)).save("colour.keras")
    refused("colour.keras", "takes (None, None, None, 3)")
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs)).save("fixed.keras")
    refused("fixed.keras", "takes (None, 8, 8, 1)")
    inputs = keras.Input((None, None, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save("lambda.keras")
    refused("lambda.keras", "is no Keras model that can be loaded")
