from __future__ import annotations

import time

import numpy as np
import pytest

from selfscale import files
from selfscale.errors import UserError
from selfscale.nn.fcn import build


def test_the_same_model_is_the_same_bytes(tmp_path):
    model = build([2], kernel=3)
    files.save_model(model, tmp_path / "a" / "model.keras")
    time.sleep(1.1)  # Keras stamps the time, in seconds
    files.save_model(model, tmp_path / "b" / "model.keras")
    assert files.sha256(tmp_path / "a" / "model.keras") == files.sha256(tmp_path / "b" / "model.keras")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model.keras"]
    images = np.random.default_rng(0).random((1, 9, 9, 1), dtype=np.float32)
    loaded = files.load_model(tmp_path / "a" / "model.keras", "train")
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize("read", [files.load_model, files.read_json])
def test_a_missing_or_damaged_file_names_the_stage_to_run(tmp_path, read):
    path = tmp_path / "file.keras"
    for state in ("missing", "damaged"):
        with pytest.raises(UserError, match=rf"file.keras: is {state}; run `selfscale train sobel`"):
            read(path, "train sobel")
        path.write_text("{")


def test_a_failed_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path, "train") == {"a": 1}
