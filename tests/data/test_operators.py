from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage import data, feature, filters

from selfscale.data.operators import (
    OPERATORS,
    canny,
    gaussian_blur,
    laplace,
    local_threshold,
    otsu,
    prewitt,
    resolve,
    scharr,
    sobel,
)
from selfscale.errors import UserError

IMAGES = arrays(np.float64, (9, 12), elements=st.integers(0, 255).map(lambda value: value / 255))


@pytest.fixture(scope="module")
def camera() -> np.ndarray:
    return data.camera()[::2, ::2] / 255


def test_what_is_registered() -> None:
    assert {name: resolve(name).discrete for name in OPERATORS.names} == {
        "canny": True,
        "gaussian_blur": False,
        "laplace": False,
        "local_threshold": True,
        "otsu": True,
        "prewitt": False,
        "scharr": False,
        "sobel": False,
    }


def test_sobel_is_that_of_scikit_image(camera: np.ndarray) -> None:
    np.testing.assert_array_equal(sobel(camera), filters.sobel(camera))


@settings(max_examples=50, deadline=None)
@given(IMAGES)
def test_sobel_against_scipy(image: np.ndarray) -> None:
    down, right = (ndimage.sobel(image, axis, mode="reflect") / 4 for axis in (0, 1))
    magnitude, mean = sobel(image), sobel(image, combine="geometric_mean")
    np.testing.assert_allclose(magnitude, np.hypot(down, right) / np.sqrt(2), atol=1e-12)
    np.testing.assert_allclose(mean**2, np.abs(down * right), atol=1e-12)
    assert magnitude.max() <= 1 and magnitude.min() >= 0
    assert (mean <= magnitude + 1e-7).all()  # the geometric mean is never above the quadratic one


def test_geometric_mean_misses_straight_edges_and_equals_the_norm_on_diagonals() -> None:
    vertical = np.zeros((8, 8))
    vertical[:, 4:] = 1
    assert sobel(vertical).max() > 0.5
    assert sobel(vertical, combine="geometric_mean").max() == 0
    diagonal = np.tri(8)
    np.testing.assert_allclose(
        sobel(diagonal, combine="geometric_mean")[2:6, 2:6], sobel(diagonal)[2:6, 2:6], atol=1e-7
    )


def test_canny_is_that_of_scikit_image(camera: np.ndarray) -> None:
    expected = feature.canny(camera, sigma=2, low_threshold=0.05, high_threshold=0.15)
    assert expected.any()
    np.testing.assert_array_equal(canny(camera, sigma=2, low=0.05, high=0.15), expected)
    np.testing.assert_array_equal(canny(camera), feature.canny(camera, 1.0, 0.1, 0.2))


def test_otsu_is_that_of_scikit_image(camera: np.ndarray) -> None:
    np.testing.assert_array_equal(otsu(camera), camera > filters.threshold_otsu(camera))


def test_otsu_separates_two_values() -> None:
    image = np.where(np.eye(6) > 0, 0.8, 0.2)
    np.testing.assert_array_equal(otsu(image), np.eye(6) > 0)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_otsu_of_a_constant_image_is_zero(value: float) -> None:
    assert not otsu(np.full((5, 5), value)).any()


@pytest.mark.parametrize(
    ("operator", "expected", "across"),
    [(scharr, filters.scharr, [3, 10, 3]), (prewitt, filters.prewitt, [1, 1, 1])],
)
def test_gradients_are_those_of_scikit_image_and_of_their_kernels(camera, operator, expected, across):
    np.testing.assert_array_equal(operator(camera), expected(camera))
    smooth, slope = np.array(across) / sum(across), np.array([1, 0, -1])
    kernels = np.outer(smooth, slope), np.outer(slope, smooth)
    right, down = (ndimage.convolve(camera, kernel, mode="reflect") for kernel in kernels)
    np.testing.assert_allclose(operator(camera), np.hypot(down, right) / np.sqrt(2), atol=1e-12)


@pytest.mark.parametrize("sign", ["drop", "keep"])
def test_laplace_of_a_single_pixel_by_hand(sign: str) -> None:
    image = np.zeros((5, 5))
    image[2, 2] = 0.8
    found = np.zeros((5, 5))
    found[2, 2] = 4 * 0.8
    found[[1, 3, 2, 2], [2, 2, 1, 3]] = -0.8
    expected = np.abs(found) / 4 if sign == "drop" else found / 8 + 0.5
    np.testing.assert_allclose(laplace(image, sign=sign), expected, atol=1e-12)


def test_laplace_is_that_of_scikit_image(camera: np.ndarray) -> None:
    np.testing.assert_allclose(laplace(camera), np.abs(filters.laplace(camera)) / 4)
    np.testing.assert_allclose(laplace(camera, sign="keep") * 8 - 4, filters.laplace(camera), atol=1e-12)


def test_gaussian_blur_is_that_of_scikit_image_and_of_its_formula(camera: np.ndarray) -> None:
    np.testing.assert_array_equal(gaussian_blur(camera, sigma=2), filters.gaussian(camera, 2))
    spot = np.zeros((21, 21))
    spot[10, 10] = 1
    distance = np.arange(-10, 11)
    weights = np.exp(-(distance**2) / (2 * 1.5**2)) * (abs(distance) <= 6)
    expected = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(gaussian_blur(spot, sigma=1.5), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(IMAGES)
def test_continuous_operators_stay_between_zero_and_one(image: np.ndarray) -> None:
    kept = laplace(image, sign="keep")
    for found in (scharr(image), prewitt(image), laplace(image), kept, gaussian_blur(image)):
        assert found.shape == image.shape
        assert found.min() >= 0 and found.max() <= 1 + 1e-12


@pytest.mark.parametrize("method", ["gaussian", "mean", "median"])
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_local_threshold_is_that_of_scikit_image(camera: np.ndarray, method: str, offset: float) -> None:
    threshold = filters.threshold_local(camera, 15, method, offset)
    clear = np.abs(camera - threshold) > 1e-9
    assert clear.mean() > 0.7  # the median often is the pixel itself
    found = local_threshold(camera, 15, method, offset)
    np.testing.assert_array_equal(found[clear], (camera > threshold)[clear])
    assert not found[~clear].any()


def test_local_threshold_by_hand() -> None:
    image = np.full((5, 5), 0.5)
    image[2, 2] = 0.6
    np.testing.assert_array_equal(local_threshold(image, 3, "mean"), image > 0.55)
    # A neighbour of the bright pixel is below the mean of its nine, 0.5 + 0.1 / 9, by less than 0.02.
    assert local_threshold(image, 3, "mean", offset=0.02).all()


@pytest.mark.parametrize("method", ["gaussian", "mean", "median"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.0])
def test_local_threshold_of_a_constant_image_is_zero(method: str, value: float) -> None:
    assert not local_threshold(np.full((20, 20), value), 11, method).any()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("local_threshold", {"block_size": 8}, "block_size: has to be odd, so that it has a middle, not 8"),
        ("local_threshold", {"block_size": 1}, "block_size: input should be greater than or equal to 3"),
        ("local_threshold", {"method": "mode"}, "method: input should be 'gaussian', 'mean' or 'median'"),
        ("gaussian_blur", {"sigma": 0}, "sigma: input should be greater than 0, not 0"),
        ("gaussian_blur", {"sigma": 101}, "sigma: input should be less than or equal to 100, not 101"),
        ("canny", {"sigma": float("inf")}, "sigma: input should be "),
        ("canny", {"low": float("nan")}, "low: input should be "),
        ("local_threshold", {"block_size": 257}, "block_size: input should be less than or equal to 255"),
        ("laplace", {"sign": True}, "sign: input should be 'drop' or 'keep', not True"),
        ("scharr", {"sigma": 1}, "'sigma' is unknown; scharr takes no arguments"),
    ],
)
def test_arguments_are_checked(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(name).check(arguments, "arguments")
    assert str(error.value).startswith(f"arguments{'.' if ':' in message else ': '}{message}")


def test_check_names_the_key_and_the_nearest_argument() -> None:
    with pytest.raises(UserError) as error:
        resolve("canny").check({"sigm": 2}, "tasks.canny.arguments")
    assert str(error.value) == (
        "tasks.canny.arguments: 'sigm' is unknown; did you mean 'sigma'? valid: high, low, sigma"
    )
    assert resolve("canny").check({"sigma": 2}, "") == {"sigma": 2.0}
    with pytest.raises(UserError, match=r"^tasks\.canny\.arguments\.high: .*less than or equal to 1, not 2"):
        resolve("canny").check({"high": 2}, "tasks.canny.arguments")


def test_unknown_operator() -> None:
    with pytest.raises(UserError, match=r"^tasks\.a\.operator: 'sobl' is unknown; did you mean 'sobel'\?"):
        resolve("sobl", "tasks.a.operator")


def test_own_operator_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_operators_e.py").write_text(
        "def invert(image, amount: float = 1.0): return amount - image\n"
        "def dark(image): return image < 0.5\n"
        "dark.discrete = True\n"
    )
    invert, dark = resolve("own_operators_e:invert"), resolve("own_operators_e:dark")
    assert (invert.discrete, dark.discrete) == (False, True)
    assert invert.function(0.25, **invert.check({"amount": 2}, "")) == 1.75


def test_importing_operators_is_cheap() -> None:
    heavy = "{'numpy', 'scipy', 'skimage.filters.edges', 'tensorflow', 'mlflow'}"
    code = f"import sys, selfscale.data.operators; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
