"""What the machine did during a session: processors, memory and GPUs, as MLflow's own monitors see them."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

INTERVAL = 5.0  # seconds between two samples: a session that is shorter may have none
MOST_SAMPLES = 10_000


class Sample(NamedTuple):
    """`values` by MLflow's names of them; `at` in seconds since 1970. In JSON: [at, values]."""

    at: float
    values: dict[str, float]


class Monitor(threading.Thread):
    """Takes samples as long as it is open."""

    def __init__(self, interval: float = INTERVAL) -> None:
        super().__init__(daemon=True)
        self._interval, self._over = interval, threading.Event()
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._monitors: list[Any] = []

    def run(self) -> None:
        # MLflow takes seconds to import.
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors.append(CPUMonitor())
        with suppress(ImportError, RuntimeError):  # no library of NVIDIA's, or no GPU
            self._monitors.append(GPUMonitor())
        while not self._over.wait(self._interval):
            self._samples.append(Sample(time.time(), self._values()))

    def _values(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values

    def last(self, seconds: float) -> list[Sample]:
        """The samples of so many seconds until now."""
        since = time.time() - seconds
        return [sample for sample in list(self._samples) if sample.at >= since]

    def close(self) -> None:
        self._over.set()
