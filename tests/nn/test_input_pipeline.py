from __future__ import annotations

import numpy as np

from conftest import pictures
from selfscale.nn.input_pipeline import Split, draw


def test_crops_are_cut_alike_from_images_and_targets():
    images = pictures(3, seed=0)
    crops = draw(Split(images, images), (4, 2), 16, np.random.default_rng(0))
    assert crops.images.shape == (4, 2, 16, 16, 1)
    np.testing.assert_array_equal(crops.images, crops.targets)
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (16, 16), axis=(1, 2)).reshape(-1, 256)
    every = {row.tobytes() for row in windows}
    assert all(crop.tobytes() in every for crop in crops.images.reshape(-1, 256))


def test_whole_images_and_crops_larger_than_the_image():
    images = pictures(3, seed=0)
    for crop in (None, 500):
        drawn = draw(Split(images, images), (2, 2), crop, np.random.default_rng(0))
        assert drawn.images.shape == (2, 2, 40, 40, 1)
