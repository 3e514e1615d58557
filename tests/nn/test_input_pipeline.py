from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import pictures
from selfscale.nn.input_pipeline import Split, draw, spread


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


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 45))
def test_images_are_spread_over_the_photographs(photograph, count):
    images = np.arange(len(photograph), dtype=np.uint8)[:, None, None, None]
    found = spread(Split(images, images, np.array(photograph)), count)
    rows = found.images.ravel()
    assert len(rows) == min(count, len(photograph))
    assert (np.diff(rows.astype(int)) > 0).all()
    assert found.photograph.tolist() == [photograph[row] for row in rows]
    there, taken = (np.bincount(numbers, minlength=7) for numbers in (photograph, found.photograph))
    assert all(n == most or n >= taken.max() - 1 for n, most in zip(taken, there, strict=True))


def test_of_one_photograph_the_spread_is_even_and_of_many_the_first_come():
    images = np.arange(8, dtype=np.uint8)[:, None, None, None]
    assert spread(Split(images, images, np.zeros(8, int)), 4).images.ravel().tolist() == [0, 2, 4, 6]
    assert spread(Split(images, images), 3).images.ravel().tolist() == [0, 1, 2]
