from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conftest import pictures
from selfscale.inference.layer_views import FilterView, LayerView, NetworkView
from selfscale.nn import compaction
from selfscale.nn.fcn import build
from selfscale.nn.masking import MaskedNetwork
from selfscale.records import Filter
from selfscale.reporting import network_picture
from selfscale.reporting.network_picture import GAP, LINE, SIDE, THUMB, Example, examples, network_pictures
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
    small = examples(images[:, :50, :41], images[:, :50, :41])
    assert small[0].image.shape == (50, 41)


def test_each_row_has_a_layers_outputs_and_kernels_in_their_places(network, example):
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
    whole = np.asarray(network.graph(example.image[None, ..., None]))[0, ..., 0]
    np.testing.assert_allclose(output.filters[0].output, whole, atol=1e-5)
    half = SIDE // THUMB
    expected = whole.reshape(THUMB, half, THUMB, half).mean(axis=(1, 3))
    np.testing.assert_allclose(network_picture.shrunk(output.filters[0].output), expected, atol=1e-5)


def test_a_removed_filter_keeps_its_place_crossed_out(network, example):
    whole = MaskedNetwork(network.model)
    records = [record(1, filters=REMOVED), replace(record(2, filters=()), filters_kept=(2, 2))]
    before, after = (
        opened(network_pictures(compaction.compact(shown), shown.active, found, [example])[0])
        for shown, found in ((whole, []), (network, records))
    )
    assert before.shape == after.shape
    # The thumbs of layer 0: below title, examples and the layer's own title.
    title = LINE + GAP
    top = GAP + title + (LINE + THUMB + 2) + title + LINE
    for index, gone in enumerate((False, True, False)):
        left = GAP + index * (THUMB + GAP)
        cell = after[top : top + THUMB, left : left + THUMB]
        was = before[top : top + THUMB, left : left + THUMB]
        np.testing.assert_array_equal(cell[0, 0], [153] * 3 if gone else was[0, 0])
        # A cross on paper: gray only; an output: red or green on black.
        assert (cell.max(axis=2) == cell.min(axis=2)).all() == gone
        assert was[..., 2].max() == 0


def test_equal_networks_make_equal_bytes_without_random_numbers(network, example):
    model = compaction.compact(network)
    state = np.random.get_state()[1].copy()
    found = [
        network_pictures(model, network.active, [record(1, filters=REMOVED)], [example] * 2) for _ in range(2)
    ]
    assert found[0] == found[1] and found[0][0] == found[0][1]
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert len(found[0][0]) < 100_000


@pytest.mark.parametrize(
    ("value", "colour"), [(-1, (255, 0, 0)), (0, (0, 0, 0)), (1, (0, 255, 0)), (0.5, (0, 128, 0))]
)
def test_red_is_negative_and_green_positive(value, colour):
    index = int(network_picture.signed(np.float32([value]), 1.0)[0])
    assert network_picture.PALETTE[3 * index : 3 * index + 3] == pytest.approx(colour, abs=1)


def test_of_huge_layers_only_some_filters_are_drawn():
    output = np.ones((THUMB, THUMB), np.float32)
    kernels = {channel: np.ones((3, 3), np.float32) for channel in range(300)}
    filters = [FilterView(f"0.{i}", kernels, output) for i in range(300)]
    layers = [LayerView(number, "layer", filters, {}) for number in (0, 1)]
    picture = opened(network_picture.draw("title", Example(output, output), layers))
    assert picture.shape[0] < 1700 and picture.shape[1] < 800
