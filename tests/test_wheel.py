"""The wheel has all of the package, and what it installs works in an empty folder, far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfscale import __version__
from selfscale.nn.fcn import build
from workspaces import CHECKOUT

RUN = "import sys; from selfscale.cli.app import main; main()"


def python(folder: Path, *words: str) -> str:
    """Run the unpacked wheel in an empty folder."""
    (folder / "empty").mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(folder / "installed"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = (sys.executable, "-c", *words)
    done = subprocess.run(
        words, cwd=folder / "empty", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """A folder whose `installed` has the files of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        CHECKOUT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"selfscale-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder


def test_every_file_of_the_package_is_in_it(unpacked):
    def files(root: Path) -> set[str]:
        found = (path for path in (root / "selfscale").rglob("*") if path.is_file())
        return {str(path.relative_to(root)) for path in found if path.suffix != ".pyc"}

    assert files(unpacked / "installed") == files(CHECKOUT / "src")
    assert "selfscale/py.typed" in files(unpacked / "installed")
    (about,) = (unpacked / "installed").glob("*.dist-info")
    assert "selfscale = selfscale.cli.app:main" in (about / "entry_points.txt").read_text()
    assert (about / "licenses" / "LICENSE").exists()


def test_its_commands_need_no_checkout(unpacked):
    where = python(unpacked, "import selfscale; print(selfscale.__file__)")
    assert Path(where.strip()) == unpacked / "installed/selfscale/__init__.py"
    assert __version__ in python(unpacked, RUN, "--version")
    image = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(image).save(unpacked / "photo.png")
    build([2], kernel=3, deviation=0.3, seed=(0,)).save(unpacked / "small.keras")
    python(unpacked, RUN, "apply", "../small.keras", "../photo.png", "--out", "edges")
    with Image.open(unpacked / "empty/edges/photo.png") as edges:
        assert edges.size == (30, 20)
