from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, precision_score, recall_score

from selfscale.nn.input_pipeline import Split
from selfscale.nn.losses import LOSSES, ratio, without_skill
from selfscale.nn.metrics import Evaluation, Evaluator, uiqi

RNG = np.random.default_rng(0)


def as_batch(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32)[None, ..., None]


def index(x: np.ndarray, y: np.ndarray) -> float:
    total, count = uiqi(as_batch(x), as_batch(y))
    return float(total[0] / count[0])


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """Wang and Bovik's definition for one 8x8 window, with its cases for flat windows."""
    mean_x, mean_y = x.mean(), y.mean()
    spread = x.var() + y.var()
    luminance = mean_x**2 + mean_y**2
    if spread == 0:
        return 1.0 if luminance == 0 else 2 * mean_x * mean_y / luminance
    covariance = ((x - mean_x) * (y - mean_y)).mean()
    return 4 * covariance * mean_x * mean_y / (spread * luminance)


def sliding(x: np.ndarray, y: np.ndarray) -> float:
    """The average over all 8x8 windows of pictures with values 0..255.

    sewar's `uqi` is no reference: it mixes means into a formula for sums.
    """
    windows = (np.lib.stride_tricks.sliding_window_view(v, (8, 8)).reshape(-1, 64) for v in (x, y))
    return float(np.mean([by_hand(a, b) for a, b in zip(*windows, strict=True)]))


@pytest.mark.parametrize("noise", [0, 5, 60])
def test_uiqi_of_a_picture_is_the_average_of_the_published_formula(noise):
    target = RNG.integers(0, 256, (20, 17)).astype(float)
    target[:9, :9] = 0
    output = np.clip(np.rint(target + RNG.normal(0, noise, target.shape)), 0, 255)
    assert index(target / 255, output / 255) == pytest.approx(sliding(target, output), abs=1e-9)


def test_uiqi_is_one_only_for_the_same_picture_and_minus_one_for_its_negative():
    x = RNG.integers(0, 256, (20, 20)).astype(float)
    assert index(x / 255, x / 255) == 1
    checks = np.indices((8, 8)).sum(axis=0) % 2
    assert index(checks, 1 - checks) == pytest.approx(-1)


@settings(max_examples=50, deadline=None)
@given(*[arrays(np.uint8, (8, 8), elements=st.sampled_from([0, 1, 128, 255])) | st.integers(0, 255)] * 2)
def test_uiqi_of_one_window_is_the_published_formula_even_if_flat(x, y):
    x, y = (np.broadcast_to(np.asarray(v, float), (8, 8)) for v in (x, y))
    assert index(x / 255, y / 255) == pytest.approx(by_hand(x, y), abs=1e-9)


def test_losses_against_numpy():
    target, output = RNG.random((2, 3, 6, 6, 1), dtype=np.float32)
    assert float(ratio(LOSSES["mae"](target, output))) == pytest.approx(
        np.abs(target - output).mean(), rel=1e-5
    )
    assert float(ratio(LOSSES["mse"](target, output))) == pytest.approx(
        ((target - output) ** 2).mean(), rel=1e-5
    )


def test_soft_f1_of_a_discrete_output_is_one_minus_f1():
    target, output = RNG.integers(0, 2, (2, 3, 9, 9, 1)).astype(np.float32)
    expected = 1 - f1_score(target.ravel(), output.ravel())
    assert float(ratio(LOSSES["soft_f1"](target, output))) == pytest.approx(expected, rel=1e-5)


def test_soft_f1_extremes():
    edge = as_batch(np.eye(4))
    assert float(ratio(LOSSES["soft_f1"](edge, edge))) == 0
    assert float(ratio(LOSSES["soft_f1"](edge, 3 * edge))) == 0  # beyond 1 is as good as 1
    assert float(ratio(LOSSES["soft_f1"](edge, 0 * edge))) == 1
    assert float(ratio(LOSSES["soft_f1"](0 * edge, 0 * edge))) == 0


def doubling() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False)(inputs))


def test_evaluation_of_all_images_in_uneven_batches():
    images = RNG.integers(0, 256, (11, 16, 16, 1)).astype(np.uint8)
    targets = RNG.integers(0, 2, images.shape).astype(np.uint8)
    evaluation = Evaluator(doubling(), discrete=True, threshold=0.45)(Split(images, targets))
    output = images / np.float32(255)
    found = output.ravel() > 0.45
    scores = evaluation.scores()
    assert scores["f1"] == pytest.approx(f1_score(targets.ravel(), found))
    assert scores["precision"] == pytest.approx(precision_score(targets.ravel(), found))
    assert scores["recall"] == pytest.approx(recall_score(targets.ravel(), found))
    assert scores["mae"] == pytest.approx(np.abs(output - targets).mean(), rel=1e-5)
    assert scores["uiqi"] == pytest.approx(
        np.mean([sliding(255.0 * t[..., 0], i[..., 0] * 1.0) for t, i in zip(targets, images, strict=True)])
    )
    assert evaluation.sums["mae"].shape == (11, 2)
    assert not evaluation.dead


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)))
def test_sums_are_of_photographs_in_whatever_order_their_crops_are(order):
    images, targets = RNG.integers(0, 256, (2, 7, 16, 16, 1)).astype(np.uint8)
    photograph = np.array([0, 1, 1, 2, 0, 1, 2])
    evaluate = Evaluator(doubling(), discrete=False)
    expected = np.zeros((3, 2))
    np.add.at(expected, photograph, evaluate(Split(images, targets)).sums["mae"])
    shuffled = Split(images[order], targets[order], photograph[order])
    np.testing.assert_allclose(evaluate(shuffled).sums["mae"], expected, rtol=1e-6)


def test_a_black_output_is_dead_and_nan_is_not_finite():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert Evaluator(doubling(), discrete=False)(Split(images, images)).dead
    model = doubling()
    model.set_weights([np.full((1, 1, 1, 1), np.nan, np.float32)])
    assert not Evaluator(model, discrete=False)(Split(images, images)).finite


def test_a_score_without_any_pixel_to_count_is_zero():
    assert Evaluation({"f1": np.zeros((3, 2))}, 0, 1).score("f1") == 0


@pytest.mark.parametrize("loss", ["mae", "mse", "soft_f1"])
def test_no_output_that_is_the_same_everywhere_is_better(loss):
    targets = RNG.random((3, 9, 11, 1)).astype("float16")
    if loss == "soft_f1":
        targets = (targets > 0.8).astype("uint8")
    best = without_skill(loss, targets)
    wanted = targets.astype("float32")
    of = [float(ratio(LOSSES[loss](wanted, np.full_like(wanted, p)))) for p in np.linspace(0, 1, 101)]
    assert best <= min(of) + 1e-6
    assert best == pytest.approx(min(of), rel=1e-3)


def test_without_anything_to_find_there_is_nothing_to_miss():
    assert without_skill("mae", np.zeros((2, 4, 4, 1), "uint8")) == 0
    assert without_skill("soft_f1", np.zeros((2, 4, 4, 1), "uint8")) == 1
