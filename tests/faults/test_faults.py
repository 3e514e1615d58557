"""The campaign for ten seconds; `make faults` runs it for an hour."""

from __future__ import annotations

from faults.campaign import run


def test_no_fault_ends_in_anything_undocumented() -> None:
    counts, findings = run(seconds=10, seed=1)
    assert findings == []
    assert sum(counts.values()) > 16
