from __future__ import annotations

import time

import psutil

from selfscale.tracking.system_metrics import Monitor


def test_it_samples_what_the_machine_does_until_it_is_closed():
    monitor = Monitor(interval=0.02)
    started = time.time()
    monitor.start()
    while len(monitor.last(60)) < 3:
        time.sleep(0.02)
    monitor.close()
    monitor.join(5)
    samples = monitor.last(60)
    assert [sample.at for sample in samples] == sorted(sample.at for sample in samples)
    assert all(started <= sample.at <= time.time() for sample in samples)
    for sample in samples:
        assert 0 <= sample.values["cpu_utilization_percentage"] <= 100
        used = sample.values["system_memory_usage_megabytes"]
        assert 0 < used < psutil.virtual_memory().total / 1e6
    assert monitor.last(0) == []
