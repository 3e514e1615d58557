from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import feature, filters

from selfscale.data.prepare import SPLITS, load_split, prepare
from selfscale.data.shards import parts
from selfscale.data.targets import make_targets
from selfscale.data_config import Data, Task
from selfscale.errors import UserError
from selfscale.files import read_json


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("targets") / "prepared"
    prepare(Data(size=128), folder, workers=1)
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own module `own_operators_f` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("own_operators_f", None)
    return tmp_path / "own_operators_f.py"


def task(operator: str, **arguments: Any) -> Task:
    return Task(operator=operator, arguments=arguments, loss="mae")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_continuous_targets_are_fine_enough(prepared: Path, tmp_path: Path) -> None:
    manifest = make_targets(task("sobel"), prepared, tmp_path / "sobel", workers=1)
    assert (manifest["operator"], manifest["discrete"], manifest["arguments"]) == ("sobel", False, {})
    assert manifest["images"] == read_json(prepared / "manifest.json", "prepare")["fingerprint"]
    assert read_json(tmp_path / "sobel" / "manifest.json", "targets") == manifest
    for name in SPLITS:
        split = load_split(prepared, tmp_path / "sobel", name)
        assert split.targets.dtype == np.float16
        for image, target in zip(split.images, split.targets, strict=True):
            expected = filters.sobel(image[..., 0] / 255)
            error = np.abs(target[..., 0].astype(float) - expected)
            assert error.max() <= 2.5e-4
            assert error[expected < 0.06].max() <= 1.6e-5


def test_discrete_targets_are_zero_or_one(prepared: Path, tmp_path: Path) -> None:
    make_targets(task("canny", sigma=2), prepared, tmp_path / "canny", workers=1)
    split = load_split(prepared, tmp_path / "canny", "test")
    assert split.targets.dtype == np.uint8
    for image, target in zip(split.images, split.targets, strict=True):
        np.testing.assert_array_equal(target[..., 0], feature.canny(image[..., 0] / 255, 2, 0.1, 0.2))


def test_equal_whatever_the_workers(prepared: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        make_targets(task("sobel"), prepared, tmp_path / str(workers), workers)
    assert len(parts(np.load(tmp_path / "1" / "train.npy"))) > 1
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


COUNTS = """
from pathlib import Path

def f(image):
    calls = Path("calls")
    count = int(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text(str(count))
    if count == 20:
        raise KeyboardInterrupt
    return image
"""


@pytest.mark.parametrize("changed", [False, True])
def test_cut_off_it_goes_on_unless_the_operator_changed(
    prepared: Path, tmp_path: Path, own: Path, changed: bool
) -> None:
    own.write_text(COUNTS)
    with pytest.raises(KeyboardInterrupt):
        make_targets(task("own_operators_f:f"), prepared, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    sys.modules.pop("own_operators_f", None)
    if changed:
        own.write_text(COUNTS.replace("return image", "return image  / 2"))
    make_targets(task("own_operators_f:f"), prepared, tmp_path / "out", workers=1)
    images = sum(len(np.load(prepared / f"{split}.npy")) for split in SPLITS)
    calls = int((tmp_path / "calls").read_text()) - 20
    assert calls == images if changed else images - 20 < calls < images
    for split in SPLITS:
        targets = np.load(tmp_path / "out" / f"{split}.npy")
        wanted = np.load(prepared / f"{split}.npy") / 255 / (2 if changed else 1)
        np.testing.assert_allclose(targets, wanted, atol=5e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_own_operator(prepared: Path, tmp_path: Path, own: Path, workers: int) -> None:
    own.write_text("def dark(image, below: float): return image < below\ndark.discrete = True\n")
    manifest = make_targets(task("own_operators_f:dark", below=0.25), prepared, tmp_path / "dark", workers)
    assert manifest["discrete"]
    split = load_split(prepared, tmp_path / "dark", "train")
    np.testing.assert_array_equal(split.targets, split.images < 0.25 * 255)


def test_the_manifest_tells_a_changed_own_operator(prepared: Path, tmp_path: Path, own: Path) -> None:
    manifests = []
    for source in ("def f(image): return image", "def f(image):  return image / 2"):
        own.write_text(source)
        sys.modules.pop("own_operators_f", None)
        manifests.append(make_targets(task("own_operators_f:f"), prepared, tmp_path / "f", workers=1))
    assert manifests[0]["sha256"] != manifests[1]["sha256"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(image): return image[1:]", r"the result has shape \(127, 128\); it must be \(128, 128\)"),
        ("def f(image): return image / 0", "the result is not finite"),
        ("def f(image): return image + 1e5", "the result is not finite, or beyond 65504"),
        ("def f(image): return image[0]\nf.discrete = True", "the result has shape"),
        ("def f(image): return image\nf.discrete = True", "must be 0 or 1 everywhere"),
        ("def f(image): raise RuntimeError('no')", "RuntimeError: no"),
        ("def f(image): return None", "the result has shape"),
        ("def f(image): return image.astype(str)", "the result is of type <U32; it must be boolean"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_wrong_operator_is_named_with_the_image(
    prepared: Path, tmp_path: Path, own: Path, source: str, message: str
) -> None:
    own.write_text(source)
    with pytest.raises(UserError, match=rf"^operator own_operators_f:f on sk[\w/.]+: .*{message}"):
        make_targets(task("own_operators_f:f"), prepared, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_a_wrong_operator_in_a_worker(prepared: Path, tmp_path: Path, own: Path) -> None:
    own.write_text("def f(image): return image[1:]")
    with pytest.raises(UserError, match="the result has shape"):
        make_targets(task("own_operators_f:f"), prepared, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


def test_wrong_settings(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'sobel'"):
        make_targets(task("sobl"), prepared, tmp_path / "out")
    with pytest.raises(UserError, match=r"^canny\.arguments: 'sigm' is unknown"):
        make_targets(task("canny", sigm=1), prepared, tmp_path / "out")
    with pytest.raises(UserError, match=r"operator canny on .*low"):
        make_targets(task("canny", low=0.5), prepared, tmp_path / "out", workers=1)


def test_nothing_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `selfscale prepare` first"):
        make_targets(task("sobel"), tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()
