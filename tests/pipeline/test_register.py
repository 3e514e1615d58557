"""What is registered with `registry.fast`: a verified network on blocks of pixels, where that can be."""

from __future__ import annotations

import keras
import pytest

from selfscale.files import load_model, save_model
from selfscale.inference import export
from selfscale.nn.fcn import build
from selfscale.pipeline.register import on_blocks


def test_a_network_is_written_on_blocks(tmp_path):
    save_model(build([5, 5], deviation=0.2), tmp_path / "compact.keras")
    written = on_blocks(tmp_path / "compact.keras", "sobel", tmp_path)
    assert written.block == "2x2"
    assert len(load_model(written.path, "minimize").layers) > 3


@pytest.mark.parametrize("fault", ["strides", "difference"])
def test_where_that_cannot_be_the_plain_one_is_taken_and_said(fault, tmp_path, caplog, monkeypatch):
    model = build([5, 5], deviation=0.2)
    if fault == "strides":
        inputs = keras.Input((None, None, 1))
        model = keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs))
    else:
        monkeypatch.setattr(export, "TOLERANCE", -1.0)
    save_model(model, tmp_path / "compact.keras")
    assert on_blocks(tmp_path / "compact.keras", "sobel", tmp_path) is None
    (line,) = caplog.messages
    assert line.startswith("sobel: registry.fast: ") and line.endswith("; the plain network is registered")
    assert ("no padding" if fault == "strides" else "differs by") in line
