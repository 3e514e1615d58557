from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from comparisons import result
from conftest import pictures
from selfscale.decisions import Filter
from selfscale.inference.layer_views import NetworkView
from selfscale.nn import compaction
from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork
from selfscale.reporting.network_picture import Example, before_and_after, examples, network_pictures
from stores import record

REMOVED = (Filter(0, 1), Filter(1, 0), Filter(1, 3))


@pytest.fixture(scope="module")
def network() -> MaskedNetwork:
    """Of 3 and 4 filters, without 0.1, 1.0 and 1.3."""
    network = MaskedNetwork(build([3, 4], kernel=3, deviation=0.4, seed=(1,)))
    network.disable(*REMOVED)
    return network


@pytest.fixture(scope="module")
def example() -> Example:
    images = pictures(4, seed=0, side=200)
    return examples(images, images / 255)[0]


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_examples_are_the_middles_of_the_first_images():
    images = pictures(4, seed=0, side=200)
    found = examples(images, (images > 100).astype(np.uint8))
    assert len(found) == 3
    np.testing.assert_allclose(found[1].image * 255, images[1, 20:180, 20:180, 0], atol=1e-4)
    np.testing.assert_array_equal(found[1].target, images[1, 20:180, 20:180, 0] > 100)
    assert examples(images[:, :50, :41], images[:, :50, :41])[0].image.shape == (50, 41)


def test_a_view_has_a_layers_outputs_and_kernels_in_their_places(network, example):
    model = compaction.compact(network)
    view = NetworkView(model, [~active for active in network.active], {Filter(0, 1): 7})
    first, second, output = view.layers(example.image)
    assert [filter.label for filter in second.filters] == ["1.0", "1.1", "1.2", "1.3"]
    assert [filter.note for filter in first.filters if filter.output is None] == ["decision 7"]
    assert [list(filter.kernels) for filter in first.filters] == [[0], [], [0]]
    assert [list(filter.kernels) for filter in second.filters] == [[], [0, 2], [0, 2], []]
    assert list(output.filters[0].kernels) == [1, 2]
    # Against the network with its switches, whose weights are those before the compaction.
    kernel = network.blocks[1].convolution.kernel.numpy()
    np.testing.assert_array_equal(second.filters[1].kernels[2], kernel[:, :, 2, 1])
    whole = np.asarray(network.model(example.image[None, ..., None]))[0, ..., 0]
    np.testing.assert_allclose(output.filters[0].output, whole, atol=1e-5)


def test_a_picture_keeps_its_size_and_equal_networks_make_equal_bytes(network, example):
    whole, state = MaskedNetwork(network.model), np.random.get_state()[1].copy()
    records = [record(1, filters=REMOVED), replace(record(2, filters=()), filters_kept=(2, 2))]
    before, again, after = (
        network_pictures(compaction.compact(shown), shown.active, found, [example] * 2)
        for shown, found in ((whole, []), (whole, []), (network, records))
    )
    assert before == again and before[0] == before[1] and before != after
    assert opened(before[0]).shape == opened(after[0]).shape  # a filter has the same place in both
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_outputs_before_and_after_share_the_scale_of_what_is_wanted(network):
    image = pictures(1, seed=0)[0]
    models, white = (network.model, compaction.compact(network)), image.max() / 510
    shown = before_and_after(image, image / 510, *models, result("sobel", "random"))
    assert list(shown) == [
        "photograph",
        f"wanted (white: {white:.2g})",
        "initial: 875 MACs/pixel, error 0.0050",
        "minimized: 275 MACs/pixel, error 0.0040",
    ]
    photograph, wanted, *outputs = shown.values()
    np.testing.assert_allclose(photograph, image[..., 0] / 255, rtol=1e-5)
    np.testing.assert_allclose(wanted, image[..., 0] / image.max(), rtol=1e-5)
    for model, output in zip(models, outputs, strict=True):
        expected = np.clip(np.asarray(model(image[None] / np.float32(255))) / white, 0, 1)
        np.testing.assert_allclose(output, expected[0, ..., 0], atol=1e-5)
