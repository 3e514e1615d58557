"""What the network learns to imitate: operators from a gray image to a gray image.

An operator is a function `(image, **arguments) -> target`, both float or boolean arrays of shape
H,W; the image has values in [0, 1]. `discrete` ones answer 0 or 1 a pixel, others a finite number.
A user's own function, named by import path, is one too: it is discrete if it has an attribute
`discrete` that is true.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from skimage import feature, filters  # loads them, and numpy, when they are first called

from selfscale import files
from selfscale.plugins import Registry, check_arguments, imported

if TYPE_CHECKING:  # numpy would slow down every command that only reads settings
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.float64]
    Function = Callable[..., NDArray[Any]]

# A mean of equal pixels misses them by some 1e-16; of 8-bit pixels, by 1e-6 if one is another.
ROUNDING = 1e-9

OPERATORS: Registry[Callable[..., Any]] = Registry("operator")


@dataclass(frozen=True)
class Operator:
    """An operator by its name; see the module for what `function` takes and returns."""

    name: str
    function: Function
    discrete: bool

    def check(self, arguments: dict[str, Any], where: str) -> dict[str, Any]:
        """The arguments as the function's types; UserError for unknown, missing or mistyped ones."""
        return check_arguments(where, self.function, arguments, given=1)


def operator(*, discrete: bool) -> Callable[[Function], Function]:
    """Register a function as an operator under its own name."""

    def register(function: Function) -> Function:
        function.discrete = discrete  # type: ignore[attr-defined]
        return OPERATORS.register(function)

    return register


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("has to be odd, so that it has a middle")
    return number


def resolve(name: str, where: str = "operator") -> Operator:
    """The operator of that name or import path; UserError, with `where` as the key, if there is none."""
    function = OPERATORS.resolve(name, where)
    return Operator(name, function, bool(getattr(function, "discrete", False)))


def own_code(name: str, where: str) -> str:
    """A hash of the modules in the folder of a user's own function.

    Empty for a function that is registered, or that is written in C.
    """
    if ":" not in name:
        return ""
    try:
        source = inspect.getsourcefile(inspect.unwrap(imported(name, where)))
    except TypeError:
        return ""
    return files.content(Path(source).parent, "*.py") if source else ""


@operator(discrete=False)
def sobel(image: Image, combine: Literal["magnitude", "geometric_mean"] = "magnitude") -> Image:
    """Strength of the edges, in [0, 1], from the horizontal and vertical Sobel gradients.

    `magnitude` is `skimage.filters.sobel`: the Euclidean norm divided by the square root of two.
    `geometric_mean` is what the text of the thesis (1.2.1) says: the root of the product of the
    absolute gradients. It equals the magnitude where both are equal and is less everywhere else,
    zero on horizontal and vertical edges.
    """
    if combine == "magnitude":
        return filters.sobel(image)
    return abs(filters.sobel_h(image) * filters.sobel_v(image)) ** 0.5


@operator(discrete=False)
def scharr(image: Image) -> Image:
    """Strength of the edges, in [0, 1]: `skimage.filters.scharr`, truer to their direction than Sobel's.

    The Euclidean norm of the horizontal and vertical gradients, divided by the square root of two.
    """
    return filters.scharr(image)


@operator(discrete=False)
def prewitt(image: Image) -> Image:
    """Strength of the edges, in [0, 1]: `skimage.filters.prewitt`, the plain mean across the edge.

    The Euclidean norm of the horizontal and vertical gradients, divided by the square root of two.
    """
    return filters.prewitt(image)


@operator(discrete=False)
def laplace(image: Image, sign: Literal["drop", "keep"] = "drop") -> Image:
    """The Laplacian L, four times a pixel minus its four neighbours (`skimage.filters.laplace`), in [0, 1].

    L is in [-4, 4]. `drop` is |L| / 4: zero where nothing changes. `keep` is 1/2 + L / 8: bright
    pixels on dark ground are above one half, dark ones on bright ground below it.
    """
    found = filters.laplace(image)
    return abs(found) / 4 if sign == "drop" else 0.5 + found / 8


@operator(discrete=False)
def gaussian_blur(image: Image, sigma: Annotated[float, Field(gt=0, le=100)] = 1.0) -> Image:
    """The mean of the surroundings, weighted by a Gaussian: `skimage.filters.gaussian`, in [0, 1].

    `sigma` is its deviation in pixels; it is cut off at four deviations.
    """
    return filters.gaussian(image, sigma)


@operator(discrete=True)
def canny(
    image: Image,
    sigma: Annotated[float, Field(ge=0, le=100)] = 1.0,
    low: Annotated[float, Field(ge=0, le=1)] = 0.1,
    high: Annotated[float, Field(ge=0, le=1)] = 0.2,
) -> NDArray[np.bool_]:
    """Thin edges: `skimage.feature.canny`.

    `sigma` is the deviation of the Gaussian blur in pixels; `low` and `high` are the thresholds of
    the hysteresis on the Sobel gradient, `low` not above `high`.
    """
    return feature.canny(image, sigma=sigma, low_threshold=low, high_threshold=high)


@operator(discrete=True)
def otsu(image: Image) -> NDArray[np.bool_]:
    """Automatic thresholding (Otsu 1979): pixels above the threshold that separates two classes best.

    An image of a single value has no second class: its result is zero everywhere.
    """
    return image > filters.threshold_otsu(image)


@operator(discrete=True)
def local_threshold(
    image: Image,
    block_size: Annotated[int, Field(ge=3, le=255), AfterValidator(_odd)] = 11,
    method: Literal["gaussian", "mean", "median"] = "gaussian",
    offset: Annotated[float, Field(ge=-1, le=1)] = 0.0,
) -> NDArray[np.bool_]:
    """Adaptive thresholding: pixels above the mean or median around them (`skimage.filters.threshold_local`).

    The surroundings are `block_size` pixels wide; `gaussian` weights them with a deviation of
    (`block_size` - 1) / 6. `offset` lowers the threshold: gray values from 0 to 1. A pixel that equals
    its threshold is zero, whatever the rounding.
    """
    return image - filters.threshold_local(image, block_size, method, offset) > ROUNDING
