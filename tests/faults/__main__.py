"""`python -m tests.faults [SECONDS [SEED]]`: the campaign's counts; exit code 1 with a finding."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))  # as the tests import each other

from faults.campaign import run
from faults.processes import check_kill, check_register, check_settings
from faults.surroundings import check_server, check_settings_of_the_user

# By name: a check of one fault that is drawn by lot, and what may come of it.
CHECKS = {
    "kill": (check_kill, ("killed", "too late")),
    "register at once": (lambda rng: check_register(), ("once",)),
    "settings of the user": (check_settings_of_the_user, ("done",)),
    "broken server": (check_server, ("done", "refused")),
}

if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    counts, findings = run(seconds / 2, seed)
    for kind, count in check_settings(seed, max(100, int(seconds))).items():
        good = kind in ("read", "refused")
        counts[f"random settings: {kind if good else 'FAULT'}"] += count
        findings += [] if good else [f"random settings: {kind}"]
    rng, ends = np.random.default_rng(seed), time.monotonic() + seconds / 2
    while time.monotonic() < ends:
        for kind, (check, right) in CHECKS.items():
            found = check(rng)
            counts[f"{kind}: {found if found in right else 'FAULT'}"] += 1
            findings += [] if found in right else [f"{kind}: {found}"]
    print(f"seed {seed}, {seconds:g} seconds, {sum(counts.values())} faults, {len(findings)} findings")
    for kind, count in sorted(counts.items()):
        print(f"{count:7} {kind}")
    for finding in sorted(set(findings)):
        print(f"FAULT {finding[:600]}")
    sys.exit(bool(findings))
