from __future__ import annotations

import numpy as np
import pytest

from selfscale.inference import latency
from selfscale.nn.fcn import build


def test_models_are_measured_in_turns_and_the_medians_scaled_to_a_megapixel(monkeypatch):
    first, second = [0.1, 0.3, 0.2, 0.5, 0.4], [0.6, 0.7, 9.0, 0.8, 0.5]
    taken = [seconds for pair in zip(first, second, strict=True) for seconds in pair]
    clock = iter(np.cumsum([step for seconds in taken for step in (0.0, seconds)]))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(latency, "SIDE", 100)
    found = latency.milliseconds([build([1], kernel=1), build([2], kernel=1)])
    assert found == pytest.approx([30_000, 70_000])  # 100 of these images have a megapixel
