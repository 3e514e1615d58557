"""Draw docs/overview.png, the picture of README.md, from the results of `make repro`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from selfscale import files
from selfscale.inference.latency import measured
from selfscale.nn import devices
from selfscale.paths import PREPARED, TARGETS
from selfscale.pipeline.compare import job_of
from selfscale.reporting import pareto
from selfscale.settings import load

TASK = "sobel"
OUT = Path("docs/overview.png")


def main() -> None:
    settings = load(Path("params.yaml"))
    devices.configure(settings.execution)  # milliseconds are those of the report
    comparison = files.read_json(Path("reports/comparison.json"), "compare")
    result = pareto.choose_by_rule(comparison, TASK, settings.registry)
    job, loss = job_of(result, settings), result["loss"]
    wanted = np.load(TARGETS / TASK / "test.npy")
    most = wanted.std(axis=(1, 2, 3), dtype=float).argmax()  # where there is much to see
    image = np.load(PREPARED / "test.npy")[most : most + 1] / np.float32(255)
    shown = [
        ("photograph", f"{image.shape[2]}x{image.shape[1]} pixels", image),
        ("wanted", "Sobel's operator", wanted[most : most + 1]),
    ]
    paths = [job.training.output / "initial.keras", job.output / "compact.keras"]
    names = [("network", "initial", "_initial"), ("minimized network", "final", "")]
    speeds = measured(paths[1:], paths[0], job.command)
    for (title, version, size), path in zip(names, paths, strict=True):
        words = (
            f"{result[f'macs_per_pixel{size}']:g} MACs/pixel, {result[f'parameters{size}']} parameters\n"
            f"{speeds[path].ms_per_megapixel:.0f} ms per megapixel, error {result['test'][version][loss]:.4f}"
        )
        shown.append((title, words, np.asarray(files.load_model(path, job.command)(image))))
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    for axes, (title, words, picture) in zip(figure.subplots(1, 4), shown, strict=True):
        top = 1.0 if title == "photograph" else float(shown[1][2].max())
        axes.imshow(picture[0, ..., 0].astype(float), cmap="gray", vmin=0, vmax=top)
        axes.set_title(title, fontsize=13, fontweight="bold")
        axes.set_xlabel(words, fontsize=10)
        axes.set(xticks=[], yticks=[])
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
