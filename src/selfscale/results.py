"""What a minimization leaves behind: files that depend on settings and inputs only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from PIL import Image

from selfscale import compaction, files
from selfscale.config import Settings
from selfscale.dataset import Split, load_split
from selfscale.evaluation import Evaluator
from selfscale.network import size, to_image
from selfscale.operators import resolve
from selfscale.records import DecisionRecord, SessionRecord
from selfscale.training import Trainer
from selfscale.workspace import PREPARED, TARGETS, Job

GAP = 4  # white pixels between the pictures of an example


def write_result(
    trainer: Trainer,
    settings: Settings,
    job: Job,
    training: dict[str, Any],
    records: Sequence[DecisionRecord],
) -> dict[str, Any]:
    """Compact the network, measure it, and write the minimization's folder.

    `compact.keras` (the compact model), `removed_filters.npy` (the one-hot matrix),
    `decisions.json`, `curve.csv` (a line per decision), `example.png` and `result.json`, which is
    returned. `training` is the `training.json` of the initial network.
    """
    network = trainer.network
    model = compaction.compact(network)
    evaluator = Evaluator(
        model,
        discrete=resolve(settings.tasks[job.task].operator).discrete,
        threshold=settings.evaluation.threshold,
    )
    final = {
        "validation": evaluator(trainer.validation).scores(),
        "test": evaluator(load_split(PREPARED, TARGETS / job.task, "test")).scores(),
    }
    trials = [record for record in records if record.filters]
    result = {
        **job._asdict(),
        "loss": trainer.loss,
        "filters_initial": training["filters"],
        "filters_kept": list(network.filters_kept),
        "parameters_initial": training["parameters"],
        "parameters": size(model).parameters,
        "macs_per_pixel_initial": training["macs_per_pixel"],
        "macs_per_pixel": size(model).macs_per_pixel,
        **{split: {"initial": training[split], "final": final[split]} for split in final},
        "decisions": len(trials),
        "accepted": sum(record.accepted for record in trials),
        "reverted": sum(not record.accepted for record in trials),
        "training_steps": sum(record.session.steps for record in records),
        "training_steps_initial": training["training_steps"],
    }
    out = job.output
    files.save_model(model, out / "compact.keras")
    files.write_array(out / "removed_filters.npy", compaction.removed_filters(network))
    files.write_json(out / "decisions.json", [without_seconds(record) for record in records])
    header = ("decision", "score", "limit", "accepted", "filters", "macs_per_pixel")
    rows = [
        (r.number, r.score, r.limit, int(r.accepted), sum(r.filters_kept), r.macs_per_pixel) for r in records
    ]
    files.write_csv(out / "curve.csv", header, rows)
    initial = files.load_model(job.training.output / "initial.keras", f"train {job.task} --seed {job.seed}")
    files.write_bytes(out / "example.png", example(trainer.validation, [initial, model]))
    files.write_json(out / "result.json", result)
    return result


def example(split: Split, models: Sequence[keras.Model]) -> bytes:
    """A PNG: the first image, its target, and what each model makes of it, side by side."""
    image = split.images[:1]
    outputs = [np.asarray(model(image / np.float32(255))) for model in models]
    pictures = [image, *(to_image(output) for output in [split.targets[:1], *outputs])]
    gap = np.full((image.shape[1], GAP), 255, np.uint8)
    row = [part for picture in pictures for part in (picture[0, ..., 0], gap)][:-1]
    content = io.BytesIO()
    Image.fromarray(np.hstack(row)).save(content, "png")
    return content.getvalue()


def without_seconds(record: DecisionRecord) -> dict[str, Any]:
    content = asdict(record)
    del content["session"]["seconds"]
    return content


def as_rows(session: SessionRecord) -> list[tuple[int, float, float]]:
    """(step, training loss, validation score) at each evaluation of a session."""
    pairs = zip(session.losses, session.scores, strict=True)
    return [(step, loss, score) for (step, loss), (_, score) in pairs]


def decision_line(record: DecisionRecord) -> str:
    """One line for people: what was tried, how it ended and why, what is left."""
    verdict = "kept" if record.accepted else "stepped back"
    left = ", ".join(map(str, record.filters_kept))
    return f"{record.number}. {record.alteration} {record.tried}: {verdict}, {record.reason}; filters {left}"
