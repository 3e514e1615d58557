"""Simulate how often a trial is accepted whose true loss lies exactly at the tolerance's border.

At most 1 - `confidence` of such trials should be. Photographs are independent; a photograph's images share
what makes it hard for the trial. A trial is looked at once, or three times as after three cycles, and is
falsely accepted if any look accepts it. Beside it the plain percentile bootstrap over images, one look.
Run: `python benchmarks/error_rates.py`; seconds on one core per trial and thousand.
"""

from __future__ import annotations

import sys

import numpy as np

from selfscale.nn.ratios import quotient
from selfscale.search.acceptance import Judge, non_inferiority

TOLERANCE, CONFIDENCE = 0.1, 0.95
DEVIATION = 0.15  # of the relative loss between photographs
CORRELATION = 0.7  # of the losses at two looks at the same photograph
PHOTOGRAPHS = (8, 12, 20, 40, 100)
IMAGES = {"independent": 1, "clustered": 8}  # of a photograph at most


def sums(losses: np.ndarray, photograph: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Sum losses and images by photograph: `(photographs, 2)`."""
    return np.stack([np.bincount(photograph, losses), np.bincount(photograph, images)], axis=1)


def trial(rng: np.random.Generator, photographs: int, most: int, looks: int) -> tuple[bool, bool, bool]:
    """Return whether one look, any of several looks, and the plain bootstrap over images accept."""
    photograph = np.repeat(np.arange(photographs), rng.integers(1, most + 1, photographs))
    count = len(photograph)
    hard = rng.gamma(2.0, 0.5, photographs)[photograph] * rng.gamma(9.0, 1 / 9, count)
    shared = rng.normal(size=photographs)
    found = []
    for _ in range(looks):
        own = CORRELATION**0.5 * shared + (1 - CORRELATION) ** 0.5 * rng.normal(size=photographs)
        change = TOLERANCE + DEVIATION * (own[photograph] + 0.3 * rng.normal(size=count))
        found.append(hard * (1 + change))
    ones = np.ones(count)
    reference = sums(hard, photograph, ones)
    judges = [Judge(reference, TOLERANCE, non_inferiority, CONFIDENCE, n) for n in (1, looks)]
    once, several = (
        any(judge(sums(losses, photograph, ones), "completed").accepted for losses in found[: judge.looks])
        for judge in judges
    )
    weights = rng.multinomial(count, np.full(count, 1 / count), size=1000)
    pairs = (quotient(np.stack([weights @ losses, weights @ ones], axis=1)) for losses in (found[0], hard))
    bound = np.quantile(np.divide(*pairs) - 1, CONFIDENCE)
    return once, several, bool(bound <= TOLERANCE)


def main(trials: int = 1000) -> None:
    print("| images | photographs | one look | three looks | plain bootstrap over images |")
    print("| --- | --- | --- | --- | --- |")
    for kind, most in IMAGES.items():
        for photographs in PHOTOGRAPHS:
            rng = np.random.default_rng((photographs, most))
            rates = np.mean([trial(rng, photographs, most, 3) for _ in range(trials)], axis=0)
            print(
                f"| {kind} | {photographs} | " + " | ".join(f"{rate:.1%}" for rate in rates) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
