"""The campaign in seconds; `make faults` runs it for an hour.

That two processes register one version is shown in tests/tracking/test_registry.py.
"""

from __future__ import annotations

import numpy as np

from faults.campaign import run
from faults.processes import check_kill, check_settings


def test_no_fault_ends_in_anything_undocumented() -> None:
    counts, findings = run(seconds=4, seed=1)
    assert findings == []
    assert sum(counts.values()) > 16


def test_a_random_kill() -> None:
    assert check_kill(np.random.default_rng(2)) == "killed"


def test_settings_of_any_kind_are_read_or_refused() -> None:
    outcomes = check_settings(seed=1, examples=40)
    assert set(outcomes) <= {"read", "refused"}
    assert outcomes["refused"] > 10
