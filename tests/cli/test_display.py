"""What comes out of a process: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import errno
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workspaces import OWN_PHOTOGRAPHS, change_params, own_store, trained_project

COMMAND = str(Path(sys.executable).with_name("selfscale"))
SOME = {"minimization.limits.decisions": 3, "runs.tasks": ["sobel"]}
DECISION = re.compile(
    r"sobel-\w+-seed-0: \d+\. (disable|merge) layer \d filter \d.*; filters \d, \d(; at most \d+ s left)?$"
)


@pytest.fixture(autouse=True)
def no_server() -> Iterator[None]:
    with own_store():
        yield


@pytest.fixture
def project(tmp_path) -> Path:
    """With two minimizations to be done."""
    folder = shutil.copytree(trained_project(), tmp_path / "project")
    change_params(folder / "params.yaml", OWN_PHOTOGRAPHS | SOME)
    return folder


def on_terminal(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout (a pipe), and what a terminal of 150 columns gets as stderr."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    with subprocess.Popen(
        [COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: read(ours), b""))
        os.close(ours)
        assert process.stdout is not None
        return process.wait(), process.stdout.read(), shown.decode()


def read(descriptor: int) -> bytes:
    """Empty when all processes at the other end have closed it."""
    try:
        return os.read(descriptor, 65536)
    except OSError as error:
        assert error.errno == errno.EIO
        return b""


def frames(shown: str) -> str:
    """Without what moves the cursor."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown)


def assert_clean(shown: str) -> None:
    """The cursor is visible again, and in the end the display's lines are erased."""
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") >= 1
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "\x1b[2K" in shown[shown.rindex("\x1b[?25h") :]


def test_a_single_job_on_a_terminal(project):
    code, out, shown = on_terminal(project, "minimize", "sobel")
    assert (code, out) == (0, "")
    assert "minimize sobel-random-seed-0: " in frames(shown)
    assert re.search(r"decision \d, disable layer \d filter \d, step \d+ of 20", frames(shown))
    assert_clean(shown)
    lines = [line for line in frames(shown).splitlines() if "1. " in line]
    assert lines, shown  # what was decided stays


def test_a_log_file_gets_plain_lines(project):
    environment = os.environ | {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1"}
    done = subprocess.run(
        [COMMAND, "minimize", "sobel"], cwd=project, capture_output=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert not set(b"\x1b\r\b") & set(done.stderr)
    lines = done.stderr.decode().splitlines()
    lines = [line for line in lines if not line.startswith("mlruns was moved")]
    assert len(lines) == 4, lines  # three decisions and the last session of each, and nothing else
    decisions = [line for line in lines if "train last session" not in line]
    for line in decisions:
        assert DECISION.match(line), line
    assert sum(" left" in line for line in decisions) >= 1
    assert not any("left" in line for line in lines if "train last session" in line)
