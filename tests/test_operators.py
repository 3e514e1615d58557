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

from selfscale.errors import UserError
from selfscale.operators import OPERATORS, canny, otsu, resolve, sobel

IMAGES = arrays(np.float64, (9, 12), elements=st.integers(0, 255).map(lambda value: value / 255))


@pytest.fixture(scope="module")
def camera() -> np.ndarray:
    return data.camera()[::2, ::2] / 255


def test_what_is_registered() -> None:
    assert {name: resolve(name).discrete for name in OPERATORS.names} == {
        "canny": True,
        "otsu": True,
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
    heavy = "{'numpy', 'scipy', 'skimage', 'tensorflow', 'mlflow'}"
    code = f"import sys, selfscale.operators; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
