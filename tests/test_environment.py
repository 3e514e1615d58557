"""The user's own settings of Keras, the terminal and the locale change nothing in what is trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stores import python
from workspaces import JOB, contents, trained_project

OTHER_KERAS = '{"backend": "torch", "image_data_format": "channels_first", "floatx": "float16"}'


def keras_home(folder: Path, content: str = OTHER_KERAS) -> dict[str, str]:
    folder.mkdir()
    (folder / "keras.json").write_text(content)
    return {"KERAS_HOME": str(folder)}


def test_a_command_trains_to_the_same_bytes(tmp_path):
    project = shutil.copytree(trained_project(), tmp_path / "project")
    shutil.rmtree(project / "models")
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    settings |= {"KERAS_BACKEND": "torch", "TERM": "dumb", "NO_COLOR": "1"} | keras_home(tmp_path / "keras")
    command = [str(Path(sys.executable).with_name("selfscale")), *JOB.training.command.split()]
    done = subprocess.run(
        command, cwd=project, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert contents(project / "models") == contents(trained_project() / "models")


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("{}", {"KERAS_BACKEND": "torch"}, "KERAS_BACKEND=torch, but selfscale needs tensorflow; change it"),
        (OTHER_KERAS, {"KERAS_BACKEND": "tensorflow"}, "image_data_format is channels_first, but selfscale"),
        (
            '{"floatx": "float16"}',
            {},
            "keras.json: floatx is float16, but selfscale needs float32",
        ),
        ("[]", {}, "keras.json: is no mapping; delete it"),
        ("{}", {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C", "TERM": "dumb", "NO_COLOR": "1"}, ""),
    ],
    ids=["backend", "order of axes", "precision", "damaged", "terminal"],
)
def test_a_program_is_told_what_to_change(content, settings, message, tmp_path):
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment = kept | keras_home(tmp_path / "keras", content) | settings
    done = subprocess.run(
        python("import selfscale"), env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == bool(message), done.stderr
    if message:
        assert message in done.stderr.splitlines()[-1]
