"""The commands that use a network, through the entry point; a process of its own where stderr counts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from test_app import Ended, assert_one_line, command, trained  # noqa: F401

from conftest import pictures
from selfscale.data.prepare import load_split
from selfscale.nn.fcn import build
from selfscale.paths import PREPARED, TARGETS
from workspaces import selfscale


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, outside of a project: a network and two images."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    build([2, 1], kernel=3, deviation=0.3).save("model.keras")
    Path("images").mkdir()
    for number, picture in enumerate(pictures(2, seed=0)):
        Image.fromarray(picture[..., 0]).save(f"images/{number}.png")
    return tmp_path


def test_apply(command, folder):  # noqa: F811
    ended = command("apply", "model.keras", "images", "--out", "out")
    assert (ended.code, ended.out) == (0, "")
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "1.png"]


def test_apply_reports_what_it_skips(command, folder):  # noqa: F811
    Path("images/2.png").write_text("no image")
    ended = command("apply", "model.keras", "images/*.png", "--out", "out")
    assert ended.code == 1
    assert ended.err.splitlines()[0].startswith("images/2.png: skipped: broken: ")
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["model.keras", "none"], "none: there is no such file or folder"),
        (["none.keras", "images"], "none.keras: there is no such file or folder"),
        (["none", "images"], "there is no MLflow store"),
        (["model.keras", "images", "--out", "images"], "--out: images is the folder of the images"),
    ],
)
def test_apply_with_wrong_words(command, folder, words, part):  # noqa: F811
    options = [] if "--out" in words else ["--out", "out"]
    assert_one_line(command("apply", *words, *options), part)
    assert not Path("out").exists()


def test_apply_to_a_pipe_and_to_a_folder_with_one(command, folder):  # noqa: F811
    os.mkfifo("images/pipe.png")
    os.mkfifo("pipe.keras")
    for words in (("model.keras", "images/pipe.png"), ("pipe.keras", "images")):
        ended = command("apply", *words, "--out", "out")
        assert ended.code == 2
        *passed_over, line = ended.err.splitlines()
        assert line.startswith("error: ")
        assert all("images/pipe.png: is a pipe" in warning for warning in passed_over)
        assert "pipe" in ended.err
    Path("images/broken.png").write_bytes(b"\x89PNG")
    shutil.copy("images/0.png", f"images/{'n' * 247}.png")
    shutil.copy("images/0.png", f"images/{'m' * 251}.png")
    done = selfscale(folder, "apply", "model.keras", "images", "--out", "out")
    assert done.returncode == 1
    pipe, broken, end = done.stderr.splitlines()
    assert pipe.startswith("images/pipe.png: is a pipe")
    assert broken.startswith("images/broken.png: skipped: broken: ")
    assert end == "4 of 5 images written to out"
    assert len(list(Path("out").iterdir())) == 4


def test_apply_in_a_process_of_its_own_prints_one_line(folder):
    done = selfscale(folder, "apply", "model.keras", "images", "--out", "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "2 of 2 images written to out\n"


def test_export(command, folder):  # noqa: F811
    ended = command("export", "model.keras", "--to", "tflite", "--out", "new/a.tflite", "--quantize")
    assert (ended.code, ended.out) == (0, "")
    assert [path.name for path in Path("new").iterdir()] == ["a.tflite"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["model.keras", "--to", "onnx", "--out", "a.keras"], "--out: a.keras must end in .onnx"),
        (["model.keras", "--to", "saved_model", "--out", "images"], "--out: images has other things"),
        (
            ["model.keras", "--to", "keras", "--out", "a.keras", "--quantize"],
            "--quantize: is for --to tflite",
        ),
        (["model.keras", "--to", "torch", "--out", "a"], "'torch' is not one of"),
        (["model.keras", "--to", "keras", "--out", "a.keras", "--block", "2x2"], "--block: is for --fast"),
        (["model.keras", "--to", "keras", "--out", "a.keras", "--fast", "--block", "2"], "--block: 2 is no"),
        (["model.keras", "--to", "keras", "--out", "a.keras", "--fast", "--block", "9x1"], "from 1 to 4"),
        (["model.keras", "--to", "keras", "--out", "a.keras", "--fast"], "this network no faster"),
        (["none.keras", "--to", "keras", "--out", "a.keras"], "none.keras: there is no such file"),
    ],
)
def test_export_with_wrong_words(command, folder, words, part):  # noqa: F811
    before = sorted(folder.rglob("*"))
    assert_one_line(command("export", *words), part)
    assert sorted(folder.rglob("*")) == before


def test_a_quantized_export_of_a_tasks_network_tells_its_score(trained):  # noqa: F811
    network = Path("models/trained/sobel-seed-0/initial.keras")
    shutil.copy(network, "a.keras")
    Path("result.json").write_text('{"task": "sobel"}')
    done = selfscale(trained, "export", "a.keras", "--to", "tflite", "--out", "a.tflite", "--quantize")
    assert (done.returncode, done.stdout) == (0, "")
    written, distance, score = done.stderr.splitlines()
    assert written.startswith("a.tflite: tflite, ")
    assert distance.endswith("on average (on data/prepared/validation.npy)")
    split = load_split(PREPARED, TARGETS / "sobel", "validation")
    output = keras.saving.load_model(network)(split.images / np.float32(255))
    mae = np.abs(np.asarray(output) - split.targets.astype(np.float32)).mean()
    assert score.startswith(f"sobel: mae {mae:.4g} → ")
    assert score.endswith(f"on {len(split.images)} validation images")


def test_visualize(command, trained):  # noqa: F811
    network = "models/trained/sobel-seed-0/initial.keras"
    words = ("visualize", network, "photos/0.png", "photos/1.png", "--task", "sobel", "--out")
    ended = command(*words, "out")
    assert (ended.code, ended.out) == (0, "")
    found = {path.relative_to("out").as_posix(): path.read_bytes() for path in Path("out").rglob("*.png")}
    of_each = ("comparison.png", "network.png", "output-0.png", "output-1.png", "output-2.png")
    kernels = [f"kernels-{layer}.png" for layer in range(3)]
    assert sorted(found) == [*(f"{number}/{file}" for number in "01" for file in of_each), *kernels]
    assert command(*words, "other", "--palette", "colour-blind").code == 0
    assert all((Path("other") / name).read_bytes() != content for name, content in found.items())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["none.keras", "images"], "none.keras: there is no such file"),
        (["model.keras", "none"], "none: there is no such file or folder"),
        (["model.keras", "images", "--task", "sobel"], "params.yaml: there is no such file"),
    ],
)
def test_visualize_with_wrong_words(command, folder, words, part):  # noqa: F811
    assert_one_line(command("visualize", *words, "--out", "out"), part)
    assert not Path("out").exists()
