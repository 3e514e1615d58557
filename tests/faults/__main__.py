"""`python -m tests.faults [SECONDS [SEED]]`: the campaign's counts; exit code 1 with a finding."""

from __future__ import annotations

import random
import sys

from tests.faults.campaign import run

if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    counts, findings = run(seconds, seed)
    print(f"seed {seed}, {seconds:g} seconds, {sum(counts.values())} faults, {len(findings)} findings")
    for kind, count in sorted(counts.items()):
        print(f"{count:7} {kind}")
    for finding in sorted(set(findings)):
        print(f"FAULT {finding[:300]}")
    sys.exit(bool(findings))
