from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfscale.files import save_model
from selfscale.inference import latency
from selfscale.inference.latency import Speed, measured
from selfscale.nn.fcn import build


def test_functions_are_measured_in_turns_and_their_fastest_calls_scaled_to_a_megapixel(monkeypatch):
    first, second = [0.2, 0.3, 0.1, 0.5, 0.4, 0.3, 0.2], [0.6, 0.7, 9.0, 0.8, 0.5, 0.6, 0.7]
    taken = [seconds for pair in zip(first, second, strict=True) for seconds in pair]
    clock = iter(np.cumsum([step for seconds in taken for step in (0.0, seconds)]))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(latency, "SIDE", 100)
    calls: list[str] = []
    found = latency.milliseconds([lambda _: calls.append("a"), lambda _: calls.append("b")])
    assert found == pytest.approx([10_000, 50_000])  # 100 of these images have a megapixel
    assert "".join(calls) == "ab" * 8  # the first calls compile


def test_networks_of_the_same_layers_are_measured_once_and_by_the_initial_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{name}.keras") for name in ("initial", "small", "again", "other")]
    for seed, (path, widths) in enumerate(zip(paths, ([5], [1], [1], [2]), strict=True)):
        save_model(build(widths, kernel=3, seed=(seed,)), path)
    counts, answers = [], [[4.0, 1.0, 8.0, 2.0], [8.0, 6.0, 16.0, 12.0]]  # as applied, and plain
    monkeypatch.setattr(
        latency, "milliseconds", lambda functions, shapes: counts.append(len(functions)) or answers.pop(0)
    )
    initial, small, again, other = paths
    assert measured([small, again], initial, "minimize") == {
        **{initial: Speed(4.0, 8.0), small: Speed(1.0, 2.0), again: Speed(1.0, 2.0)}
    }
    # Now the machine is half as fast.
    assert measured([small, other], initial, "minimize")[other] == Speed(3.0, 6.0)
    assert measured([other, small], initial, "minimize")[small] == Speed(1.0, 2.0)
    assert counts == [4, 4]
