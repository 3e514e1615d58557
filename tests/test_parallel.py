from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfscale.errors import UserError
from selfscale.parallel import IN_FLIGHT, ordered_map


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(ordered_map(math.factorial, [300, 1, 200, 2, 5] * 5, workers)) == [
        math.factorial(n) for n in [300, 1, 200, 2, 5] * 5
    ]


def test_few_items_are_in_flight() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    for done, _ in enumerate(ordered_map(math.sqrt, items(), 2)):
        assert taken <= done + 2 * IN_FLIGHT


def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(ordered_map(math.factorial, [3, -1, 4], 2))


def test_a_worker_that_dies_is_a_user_error() -> None:
    with pytest.raises(UserError, match="a worker process died"):
        list(ordered_map(os._exit, [9], 2))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from selfscale.parallel import ordered_map\n"
        "def worker(item):\n"
        "    print(item, flush=True, file=sys.__stdout__)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(ordered_map(worker, range(9), 2))\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for _ in range(2):
            parent.stdout.readline()
        parent.kill()
        # The output ends when the last process that holds it does.
        parent.communicate(timeout=20)


def test_workers_clean_up_and_end_when_their_parent_is_asked_to_end(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from selfscale.parallel import ordered_map\n"
        "from selfscale.processes import clean_up_when_asked_to_end\n"
        "def worker(item):\n"
        "    clean_up_when_asked_to_end()\n"
        "    try:\n"
        "        print('begun', flush=True, file=sys.__stdout__)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        # The worker that ends first breaks the pool, which then terminates the other one once more.
        "        time.sleep(item)\n"
        "        print('cleaned', flush=True, file=sys.__stdout__)\n"
        "if __name__ == '__main__':\n"
        "    clean_up_when_asked_to_end()\n"
        "    list(ordered_map(worker, range(9), 2))\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        parent.terminate()
        rest, _ = parent.communicate(timeout=20)
    assert rest.split() == ["cleaned"] * 2  # and none of the other seven was begun
    assert parent.returncode == 143


def test_at_least_one_worker() -> None:
    with pytest.raises(UserError, match="workers: at least 1 is needed, not 0"):
        ordered_map(math.sqrt, [1], 0)
