"""Crops lie where the thesis and the grid say, pixel by pixel."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscale.data.cropping import centre_crop, tiles


def test_centre_crop() -> None:
    image = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
    [(crop, pixels)] = centre_crop(image, 4)
    assert crop == (1, 1, 3)
    np.testing.assert_array_equal(pixels, image[1:5, 3:7])
    assert centre_crop(image, 8) == []
    [(_, whole)] = centre_crop(image[:7, :7], 7)
    np.testing.assert_array_equal(whole, image[:7, :7])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 20))
def test_tiles_do_not_overlap_and_are_centred(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width), dtype=np.uint8)
    covered = np.zeros(image.shape, int)
    full = [(crop, pixels) for crop, pixels in tiles(image, size) if crop.scale == 1]
    assert len(full) == (height // size) * (width // size)
    for (_, top, left), pixels in full:
        np.testing.assert_array_equal(pixels, image[top : top + size, left : left + size])
        covered[top : top + size, left : left + size] += 1
    assert covered.max() <= 1
    if full:
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert abs(rows[0] - (height - 1 - rows[-1])) <= 1
        assert abs(columns[0] - (width - 1 - columns[-1])) <= 1


def test_half_size_tiles_are_means_of_four_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 48), dtype=np.uint8)
    means = image.reshape(20, 2, 24, 2).mean(axis=(1, 3))
    half = [(crop, pixels) for crop, pixels in tiles(image, 16) if crop.scale == 2]
    assert [crop for crop, _ in half] == [(2, 2, 4)]
    assert np.abs(half[0][1] - means[2:18, 4:20]).max() <= 0.5
