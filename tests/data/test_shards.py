"""Work in several processes: in order, all there or one line, and nothing left running."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfscale.data.shards import WorkerDied, kept, ordered_map, progress
from selfscale.errors import UserError

PARENT = """
import os, signal, time
from selfscale.data.shards import ordered_map
from selfscale.processes import clean_up_when_asked_to_end

def worker(item):
    print("from a user's operator")
    os.write(1, f"{item}\\n".encode())  # at once: both workers write
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs this test may ignore it
    clean_up_when_asked_to_end()
    list(ordered_map(worker, range(9), 2, "sleeping"))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    numbers = [300, 1, 200, 2, 5] * 5
    assert list(ordered_map(math.factorial, numbers, workers, "")) == [math.factorial(n) for n in numbers]


def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(ordered_map(math.factorial, [3, -1, 4], 2, ""))


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_a_user_error_and_shards_stay(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a worker process died"), kept(tmp_path / "out", 1) as state:
        (state / "0").write_text("done")
        list(ordered_map(die, [9], 2, ""))
    with pytest.raises(WorkerDied), kept(tmp_path / "out", 1) as state:
        assert (state / "0").read_text() == "done"
        list(ordered_map(os._exit, [9], 2, ""))
    with kept(tmp_path / "out", 2) as state:
        assert not (state / "0").exists()
    assert list(tmp_path.iterdir()) == []
    assert list(ordered_map(math.sqrt, [4.0], 2, "")) == [2.0]  # others work again


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)]
)
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, script], **pipes) as parent:
        assert sorted(parent.stdout.readline() for _ in range(2)) == ["0\n", "1\n"]
        parent.send_signal(number)
        # The output ends when the last process that holds it does.
        rest, _ = parent.communicate(timeout=20)
    assert (rest, parent.returncode) == ("", code)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_functions_print_is_not_on_stdout(capfd: pytest.CaptureFixture[str], workers: int) -> None:
    list(ordered_map(print, ["mine"], workers, ""))
    out, err = capfd.readouterr()
    assert (out, err.strip()) == ("", "mine")


def test_at_least_one_worker() -> None:
    with pytest.raises(UserError, match="workers: at least 1 is needed, not 0"):
        ordered_map(math.sqrt, [1], 0, "")


def test_progress_is_quiet_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter([1, 2, 3]), "counting", 3)) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_progress_shows_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress(iter([1, 2, 3]), "counting", 3)) == [1, 2, 3]
    assert "counting" in terminal.getvalue()
