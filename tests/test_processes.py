"""A process that is asked to end cleans up first, however often it is asked."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Short sleeps: a signal just before a system call is seen after it. Who runs the tests may ignore SIGHUP.
SCRIPT = """
import signal, time
from selfscale.processes import clean_up_when_asked_to_end
signal.signal(signal.SIGINT, signal.{sigint})
signal.signal(signal.SIGHUP, signal.SIG_DFL)
clean_up_when_asked_to_end()
try:
    print("begun", flush=True)
    for _ in range(600):
        time.sleep(0.1)
finally:
    print("cleaning", flush=True)
    time.sleep(0.5)
    print("cleaned", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_second_request_does_not_cut_the_cleaning_short(first: signal.Signals, code: int) -> None:
    with started("default_int_handler") as process:
        process.send_signal(first)
        assert line_of(process) == "cleaning"
        process.terminate()
        rest, _ = process.communicate(timeout=20)
    assert rest == "cleaned\n"
    assert process.returncode == code


def test_what_ignores_ctrl_c_goes_on_doing_so() -> None:
    with started("SIG_IGN") as process:
        process.send_signal(signal.SIGINT)
        process.terminate()
        rest, _ = process.communicate(timeout=20)
    assert rest == "cleaning\ncleaned\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_both_requests_at_once_are_no_noise() -> None:
    """As when Ctrl-C reaches a whole group, whose members ask each other to end, too."""
    code = SCRIPT.format(sigint="default_int_handler").replace(
        "    for _ in range(600):\n        time.sleep(0.1)",
        """    both = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for number in both:
        signal.raise_signal(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)""",
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "begun\ncleaning\ncleaned\n"
    assert "race condition" not in done.stderr


def test_a_closed_terminal_is_a_request() -> None:
    with started("default_int_handler") as process:
        process.send_signal(signal.SIGHUP)
        assert process.communicate(timeout=20)[0] == "cleaning\ncleaned\n"
    assert process.returncode == 128 + signal.SIGHUP


def started(sigint: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(sigint=sigint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert line_of(process) == "begun"
    return process


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
