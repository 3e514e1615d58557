"""Exports on blocks of pixels give the plain model's output, in each format and for images of any size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from selfscale.errors import UserError
from selfscale.inference import samples
from selfscale.inference.export import EXTRAS, FORMATS, export
from selfscale.inference.fast import gain, on_blocks
from selfscale.nn.fcn import build

IMAGE = samples.synthetic(0)[:64, :72]
SIZES = ((1, 1), (33, 47), (6, 5), (64, 8))


def network(*layers: keras.layers.Layer) -> keras.Model:
    model = keras.Sequential([keras.Input((None, None, 1)), *layers])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(np.abs(rng.normal(0.1, 0.3, weight.shape)))
    return keras.Model(model.inputs, model.outputs)


CHAINS = {
    "initial": build([5, 5], deviation=0.2, seed=(1,)),
    "without bias, rectangular, dilated": network(
        keras.layers.Conv2D(
            2, (4, 3), dilation_rate=(2, 1), padding="same", use_bias=False, activation="tanh"
        ),
        keras.layers.Conv2D(1, (1, 5), padding="same"),
    ),
    "with followers": network(
        keras.layers.Conv2D(3, 5, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.LeakyReLU(),
        keras.layers.Conv2D(1, 2, padding="same"),
        keras.layers.BatchNormalization(),
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("block", [None, "2x2", "1x3", "4x3"])
def test_the_output_is_that_of_the_plain_model(chain, block):
    model = CHAINS[chain]
    fast, _ = on_blocks(model, block)
    for size in SIZES:
        images = np.random.default_rng(0).random((2, *size, 1), dtype=np.float32)
        np.testing.assert_allclose(fast(images), model(images), atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_it_with_images_of_any_size(name, tmp_path):
    for package in EXTRAS.get(name, ()):
        pytest.importorskip(package)
    model, out = CHAINS["initial"], (tmp_path / "a").with_suffix(FORMATS[name].suffix)
    fast, block = on_blocks(model)
    assert block == "2x2"
    written = export(model, name, out, IMAGE, fast=fast)
    assert written.largest <= 1e-5
    load = FORMATS[name].load(out)
    for size in SIZES:
        images = np.random.default_rng(0).random((1, *size, 1), dtype=np.float32)
        np.testing.assert_allclose(load(images), model(images), atol=1e-5)
    for value in gain(model, load, block)[1:]:
        assert value > 0


def test_a_network_that_cannot_run_on_blocks_is_refused():
    model = network(keras.layers.Conv2D(3, 5), keras.layers.MaxPooling2D(name="pool"))
    with pytest.raises(UserError, match=r"^--fast: this network cannot run on blocks of pixels: '.*' has"):
        on_blocks(model)
