"""Preparing many photographs: speed against a plain loop, memory, and growth."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
import psutil
from PIL import Image
from rows import Row, settings
from skimage import filters, io

from selfscale.data.sources import sample

COUNTS = (1_000, 10_000, 33_000)
HEIGHT, WIDTH = 375, 500  # as most of VOC2012
LOOP = 300  # photographs of the plain loop
REPETITIONS = 5
STAGES = """
import sys, time
from pathlib import Path
from selfscale.data_config import Data, Folder, Task
from selfscale.data.prepare import prepare
from selfscale.data.targets import make_targets

if __name__ == "__main__":
    photographs, out = map(Path, sys.argv[1:])
    started = time.perf_counter()
    prepare(Data(source="folder", folder=Folder(path=str(photographs))), out / "prepared")
    between = time.perf_counter()
    make_targets(Task(operator="sobel", arguments={}, loss="mae"), out / "prepared", out / "targets")
    print(between - started, time.perf_counter() - between)
"""


def measure() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        photographs = root / "photographs"
        photographs.mkdir()
        script = root / "stages.py"
        script.write_text(STAGES)
        made = 0
        for count in COUNTS:
            make(photographs, made, count)
            made = count
            repetitions = REPETITIONS if count == COUNTS[0] else 1
            ours, loops, memory = [], [], []
            for _ in range(repetitions):
                prepared, targets, most = stages(script, photographs, root / "out")
                ours.append(count / (prepared + targets))
                loops.append(joblib.cpu_count() * plain(photographs))
                memory.append(most / 2**30)
            yield Row(
                f"prepare and targets of {count} photographs; a plain loop times the cores",
                "images/s",
                ours,
                loops,
                f"scikit-image's imread and sobel, np.save of each, {LOOP} photographs, one process",
                at_least=0.9,
                note=f"resident memory of all processes at most {max(memory):.2f} GiB",
            )


def make(folder: Path, first: int, last: int) -> None:
    """Photographs of VOC's size, cut at random from the sample's."""
    rng = np.random.default_rng(first)
    sources = [Image.open(found.path).convert("RGB") for found in sample(settings().data)]
    sources = [source for source in sources if source.width > WIDTH and source.height > HEIGHT]
    for number in range(first, last):
        source = sources[rng.integers(len(sources))]
        left, top = rng.integers(source.width - WIDTH), rng.integers(source.height - HEIGHT)
        crop = source.crop((left, top, left + WIDTH, top + HEIGHT))
        crop.save(folder / f"{number:06}.jpg", quality=90)


def stages(script: Path, photographs: Path, out: Path) -> tuple[float, float, int]:
    """Seconds of both stages, and bytes of resident memory of all their processes at most."""
    command = [sys.executable, str(script), str(photographs), str(out)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        running = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                every = [running, *running.children(recursive=True)]
                most = max(most, sum(one.memory_info().rss for one in every))
            time.sleep(0.2)
        assert process.stdout
        prepared, targets = map(float, process.stdout.read().split())
    return prepared, targets, most


def plain(photographs: Path) -> float:
    """Images a second of the loop that one would write: read gray, crop, operator, save."""
    size = settings().data.size
    with tempfile.TemporaryDirectory() as out:
        found = sorted(photographs.iterdir())[:LOOP]
        started = time.perf_counter()
        for number, path in enumerate(found):
            gray = io.imread(path, as_gray=True)
            top, left = (gray.shape[0] - size) // 2, (gray.shape[1] - size) // 2
            crop = gray[top : top + size, left : left + size]
            np.save(Path(out) / f"{number}.npy", (crop * 255).round().astype(np.uint8))
            np.save(Path(out) / f"{number}-target.npy", filters.sobel(crop).astype(np.float16))
        return LOOP / (time.perf_counter() - started)
