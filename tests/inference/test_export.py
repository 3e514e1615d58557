from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from selfscale.errors import UserError
from selfscale.inference import export as exporting
from selfscale.inference import samples
from selfscale.inference.export import FORMATS, check_place, export, require
from selfscale.nn.fcn import build

MODEL = build([3, 2], kernel=3, deviation=0.4, seed=(1,))
IMAGE = samples.synthetic(0)[:64, :72]
NAMES = {"keras": "a.keras", "saved_model": "a", "tflite": "a.tflite", "onnx": "a.onnx"}


def expected(images, model=MODEL):
    return np.asarray(model(images))


@pytest.fixture(params=NAMES)
def name(request):
    if request.param == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("tf2onnx")
    return request.param


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_format_takes_images_of_any_number_and_size(name, tmp_path):
    out = tmp_path / "new" / NAMES[name]
    written = export(MODEL, name, out, IMAGE)
    assert written.largest <= 1e-5
    assert left(out.parent) == [out.name]
    load = FORMATS[name].load(out)  # from where it is now
    for shape in ((1, 20, 31, 1), (3, 5, 6, 1), (1, 64, 8, 1)):
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        np.testing.assert_allclose(load(images), expected(images), atol=1e-5)


def test_a_former_export_is_replaced(name, tmp_path):
    out, other = tmp_path / NAMES[name], build([1], kernel=3, deviation=0.4, seed=(2,))
    export(MODEL, name, out, IMAGE)
    export(other, name, out, IMAGE)
    assert left(tmp_path) == [out.name]
    images = np.random.default_rng(0).random((1, 20, 31, 1), dtype=np.float32)
    np.testing.assert_allclose(FORMATS[name].load(out)(images), expected(images, other), atol=1e-5)


@pytest.mark.parametrize("widths", [[], [1], [1, 1], [1, 4]])
def test_layers_of_one_filter_put_out_no_axis_too_many(name, widths, tmp_path):
    out, model = tmp_path / NAMES[name], build(widths, kernel=3, deviation=0.4, seed=(2,))
    export(model, name, out, IMAGE)
    images = np.random.default_rng(0).random((2, 20, 31, 1), dtype=np.float32)
    output = FORMATS[name].load(out)(images)
    assert output.shape == (2, 20, 31, 1)
    np.testing.assert_allclose(output, expected(images, model), atol=1e-5)


def test_an_output_of_another_shape_is_an_error_even_if_it_could_be_broadcast(name, tmp_path, monkeypatch):
    chosen = FORMATS[name]

    def load(path):
        function = chosen.load(path)
        return lambda images: function(images)[None]

    monkeypatch.setitem(exporting.FORMATS, name, chosen._replace(load=load))
    with pytest.raises(UserError, match=r"puts out \(1, 1, 64, 72, 1\) instead of \(1, 64, 72, 1\)"):
        export(MODEL, name, tmp_path / NAMES[name], IMAGE)
    assert left(tmp_path) == []


@pytest.mark.parametrize("wrong", [np.float32(2e-4), np.float32("nan")])
def test_a_different_output_is_an_error_and_nothing_is_left(name, tmp_path, monkeypatch, wrong):
    chosen = FORMATS[name]

    def load(path):
        function = chosen.load(path)
        return lambda images: function(images) + wrong

    monkeypatch.setitem(exporting.FORMATS, name, chosen._replace(load=load))
    with pytest.raises(UserError, match="differs by"):
        export(MODEL, name, tmp_path / NAMES[name], IMAGE)
    assert left(tmp_path) == []


def test_what_was_there_stays_when_an_export_fails(name, tmp_path, monkeypatch):
    out = tmp_path / NAMES[name]
    export(MODEL, name, out, IMAGE)
    before = {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()}

    def write(model, path):
        raise RuntimeError("no such\noperation")

    monkeypatch.setitem(exporting.FORMATS, name, FORMATS[name]._replace(write=write))
    with pytest.raises(UserError, match="cannot be converted: no such operation"):
        export(MODEL, name, out, IMAGE)
    assert {path: path.read_bytes() for path in before} == before
    assert left(tmp_path) == [out.name]


def test_a_quantized_file_has_8_bit_weights_and_says_how_far_it_is(tmp_path):
    model = build([8, 8], kernel=5, deviation=0.2, seed=(1,))
    plain = export(model, "tflite", tmp_path / "plain.tflite", IMAGE)
    calibration = [samples.synthetic(seed)[:64, :64] for seed in range(1, 5)]
    written = export(model, "tflite", tmp_path / "small.tflite", IMAGE, calibration)
    assert written.size < plain.size
    images = IMAGE[None, ..., None] / np.float32(255)
    distance = np.abs(FORMATS["tflite"].load(tmp_path / "small.tflite")(images) - expected(images, model))
    assert 1e-4 < written.largest < 0.1 * expected(images, model).max()
    assert written.mean == pytest.approx(distance.mean(), rel=1e-3)
    interpreter = tf.lite.Interpreter(str(tmp_path / "small.tflite"))
    dtypes = [details["dtype"] for details in interpreter.get_tensor_details()]
    assert dtypes.count(np.int8) >= 6  # three kernels and what they read
    for details in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert details["dtype"] == np.float32


def test_what_a_format_lacks_is_refused(tmp_path):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(keras.layers.Conv2D(1, 3)(inputs))
    with pytest.raises(UserError, match="--to tflite: this network cannot be converted") as error:
        export(keras.Model(inputs, x), "tflite", tmp_path / "a.tflite", IMAGE)
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []


def test_dilation_and_normalization_survive(name, tmp_path):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(3, 3, dilation_rate=2, padding="same", activation="tanh")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.LeakyReLU()(x)
    model = keras.Model(inputs, keras.layers.Conv2D(1, (2, 3), padding="valid")(x))
    assert export(model, name, tmp_path / NAMES[name], IMAGE).largest <= 1e-5


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    check_place("saved_model", tmp_path / "photos")  # empty
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(UserError, match="has other things than an exported model in it"):
        check_place("saved_model", tmp_path / "photos")
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_place("onnx", tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"must end in \.tflite"):
        check_place("tflite", tmp_path / "a.keras")
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match="a file is in the place"):
        export(MODEL, "saved_model", tmp_path / "a", IMAGE)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"onnx, onnxruntime, tf2onnx is not .* 'selfscale\[onnx\]'"):
        require("onnx")
    require("tflite")


def test_the_synthetic_image_has_contrast_and_is_the_same_each_time():
    image = samples.synthetic(3)
    assert (image.shape, image.dtype) == ((256, 256), np.uint8)
    assert len(np.unique(image)) > 150
    np.testing.assert_array_equal(image, samples.synthetic(3))
    assert (image != samples.synthetic(4)).any()
