"""The worked examples of docs/own-problem.md, as they stand there, in few steps."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import test_own_task
from workspaces import CHECKOUT, new_project, own_store

pytestmark = pytest.mark.pipeline
BRIEF = {"minimization.limits.steps": 80, "training.first.steps": 150, "training.first.max_cycles": 2}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    new_project(tmp_path / "project", BRIEF)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(test_own_task, "PAGE", CHECKOUT / "docs" / "own-problem.md")
    handler = signal.getsignal(signal.SIGTERM)
    with own_store():
        yield tmp_path / "project"
    signal.signal(signal.SIGTERM, handler)


def result_of(task: str) -> tuple[dict[str, Any], keras.Model]:
    folder = Path(f"models/minimized/{task}-taylor-seed-0")
    return json.loads((folder / "result.json").read_text()), keras.saving.load_model(folder / "compact.keras")


def test_a_classifier(project, monkeypatch, capsys):
    from sklearn.datasets import load_digits

    test_own_task.follow("A classifier", monkeypatch)
    assert "selfscale-digits version 1: champion, the first one" in capsys.readouterr().out
    result, model = result_of("digits")
    found = load_digits()
    last = np.random.default_rng(0).permutation(len(found.target))[1400:]
    x = found.images[last, ..., None].astype("float32") / 16
    accuracy = np.mean(np.argmax(model(x), axis=-1) == found.target[last])
    assert result["test"]["final"]["accuracy"] == pytest.approx(accuracy) and accuracy > 0.5
    exported = tf.saved_model.load("digits_model")
    np.testing.assert_allclose(exported.serve(x), model(x), atol=1e-5)


def test_colour_photographs_to_colour_photographs(project, monkeypatch, capsys):
    from scipy import ndimage
    from skimage import data

    Path("photos").mkdir()
    Image.fromarray(data.coffee()[:90, :130]).save("photos/coffee.png")
    printed = test_own_task.follow("Sharpen colour photographs", monkeypatch)
    assert printed == "(1, 400, 600, 3)\n"
    assert "selfscale-sharpen version 1: champion, the first one" in capsys.readouterr().out
    result, model = result_of("sharpen")
    with Image.open("sharpened/coffee.png") as sharpened:
        wanted = np.rint(np.clip(model(data.coffee()[None, :90, :130] / np.float32(255))[0], 0, 1) * 255)
        np.testing.assert_array_equal(np.asarray(sharpened), wanted)
    sharp = data.chelsea()[:288, :448].astype("float32") / 255
    soft = ndimage.gaussian_filter(data.chelsea().astype("float32") / 255, (1, 1, 0))[:288, :448]
    places = [np.s_[i : i + 32, j : j + 32] for i in range(0, 268, 32) for j in range(0, 419, 32)]
    blurred, wanted = (np.stack([image[place] for place in places]) for image in (soft, sharp))
    error = float(np.mean((model.predict(blurred, verbose=0) - wanted) ** 2))
    assert result["test"]["final"]["mean_squared_error"] == pytest.approx(error, rel=1e-3)
    assert error < np.mean((blurred - wanted) ** 2)
