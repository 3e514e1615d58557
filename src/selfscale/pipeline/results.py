"""What a minimization leaves behind: files that depend on settings and inputs only."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras

from selfscale import files
from selfscale.data.prepare import load_split
from selfscale.decisions import TRAIN, DecisionRecord, SessionRecord, last_accepted
from selfscale.inference.drawing import draw_images, png
from selfscale.nn import compaction
from selfscale.nn.fcn import Size, filters_per_layer, size
from selfscale.nn.input_pipeline import Split
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Trainer
from selfscale.paths import PREPARED, TARGETS, Job, pictures_folder
from selfscale.progress import Progress
from selfscale.reporting.network_picture import Example, before_and_after, network_pictures
from selfscale.reporting.statistics import over_photographs
from selfscale.search.frontier import frontier
from selfscale.search_config import Minimization


def write_result(
    trainer: Trainer,
    job: Job,
    training: dict[str, Any],
    records: Sequence[DecisionRecord],
    state: Path,
    frontier_steps: int = 0,
) -> dict[str, Any]:
    """Compact the network, measure it, and write the minimization's folder.

    `compact.keras` (the compact model), `removed_filters.npy` (the one-hot matrix),
    `decisions.json`, `curve.csv` (a line per decision), `example.png` and `result.json`, which is
    returned. `training` is the `training.json` of the initial network. The folder `state` has the record so
    far, with the networks that were kept, their pictures and each session's end; those are copied, and
    the first picture of the last network as `network.png`.
    """
    network = trainer.network
    model = compaction.compact(network)
    evaluator = trainer.evaluator.of(model)
    test = load_split(PREPARED, TARGETS / job.task, "test")
    last = last_accepted(records)
    initially = {key: training[key] for key in ("test", "test_interval")}
    tested = on_test(evaluator(test), trainer.loss) if last else initially
    final = {"validation": evaluator(trainer.validation).scores(), **tested}
    result = result_of(trainer, job, training, records, size(model), final)
    out = job.output
    for folder in ("kept", "pictures", "sessions"):
        shutil.rmtree(out / folder, ignore_errors=True)  # of a former result
        shutil.copytree(state / folder, out / folder)
    result["frontier_steps"] = frontier_steps
    result["kept"] = points_of_curve(trainer, job, records, test, tested)
    shutil.copyfile(pictures(out, last)[0], out / "network.png")
    shutil.copyfile(state / "run.json", out / "run.json")
    files.save_model(model, out / "compact.keras")
    files.write_array(out / "removed_filters.npy", compaction.removed_filters(network))
    files.write_json(out / "decisions.json", [without_seconds(record) for record in records])
    files.write_csv(out / "curve.csv", *curve_of(records))
    initial = files.load_model(job.training.output / "initial.keras", job.training.command)
    files.write_bytes(out / "example.png", example(result, trainer.validation, initial, model))
    files.write_json(out / "result.json", result)
    return result


def on_test(evaluation: Evaluation, loss: str) -> dict[str, dict[str, Any]]:
    """What a network's only evaluation on the test images leaves: scores, and the interval of the loss."""
    return {"test": evaluation.scores(), "test_interval": over_photographs(evaluation.sums[loss])}


def result_of(
    trainer: Trainer,
    job: Job,
    training: Mapping[str, Any],
    records: Sequence[DecisionRecord],
    compact: Size,
    final: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `result.json`, but for the networks on the way; `final` are scores by split."""
    trials = [record for record in records if record.filters]
    return {
        "task": job.task,
        "strategy": job.strategy,
        "seed": job.seed,
        "loss": trainer.loss,
        "filters_initial": training["filters"],
        "filters_grown": list(trainer.network.widths),
        "filters_kept": list(trainer.network.filters_kept),
        "parameters_initial": training["parameters"],
        "parameters": compact.parameters,
        "macs_per_pixel_initial": training["macs_per_pixel"],
        "macs_per_pixel": compact.macs_per_pixel,
        **{split: {"initial": training[split], "final": final[split]} for split in final},
        "decisions": len(trials),
        "accepted": sum(record.accepted for record in trials),
        "reverted": sum(not record.accepted for record in trials),
        "training_steps": sum(record.steps for record in records),
        "training_steps_initial": training["training_steps"],
        "targets": files.content(TARGETS / job.task / "manifest.json"),
        "kept": [],
    }


def points_of_curve(
    trainer: Trainer, job: Job, records: Sequence[DecisionRecord], test: Split, tested: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The networks on the way, as points of the curve of score against size.

    All that were accepted, and of the others those that none beats in size and validation score; the
    files of the rest go. The test split is looked at last, for these alone; `tested` is what `on_test` says
    of the network accepted last.
    """
    scores = {record.number: record.score for record in records}
    accepted = {record.number: record for record in records if record.accepted}
    points: dict[int, dict[str, Any]] = {}
    evaluators = {}
    for path in sorted((job.output / "kept").glob("*.keras")):
        model, number = files.load_model(path, job.command), int(path.stem)
        evaluators[number] = evaluator = trainer.evaluator.of(model)
        if number not in scores:  # of the frontier
            scores[number] = evaluator(trainer.validation, (trainer.loss,)).score(trainer.loss)
        record = accepted.get(number)
        points[number] = {
            "decision": number,
            "filters_kept": list(record.filters_kept if record else filters_per_layer(model)),
            **size(model)._asdict(),
            "validation": scores[number],
        }

    def beaten(point: dict[str, Any]) -> bool:
        measures = ("macs_per_pixel", "validation")
        return any(
            all(other[key] <= point[key] for key in measures) and other is not point
            for other in points.values()
        )

    for number in [n for n, point in points.items() if n not in accepted and beaten(point)]:
        del points[number]
        kept_path(job.output, number).unlink()
    for number, point in points.items():
        found = tested
        if number != last_accepted(records):
            found = on_test(evaluators[number](test, (trainer.loss,)), trainer.loss)
        point |= {"test": found["test"][trainer.loss], "test_interval": found["test_interval"]}
    return list(points.values())


def curve_of(records: Sequence[DecisionRecord]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The head and the lines of `curve.csv`."""
    head = ("decision", "score", "limit", "accepted", "filters", "macs_per_pixel")
    return head, [
        (r.number, r.score, r.limit, int(r.accepted), sum(r.filters_kept), r.macs_per_pixel) for r in records
    ]


def save_frontier(
    trainer: Trainer,
    job: Job,
    settings: Minimization,
    records: Sequence[DecisionRecord],
    folder: Path,
    progress: Progress,
) -> int:
    """Save networks below the tolerance, behind those of the decisions; returns the training steps."""
    limit = settings.limits.steps
    if not settings.frontier or limit is None:
        return 0
    left = limit - sum(r.steps for r in records if not r.grows and r.alteration != TRAIN)
    spent = 0
    points = frontier(trainer, settings, seed=job.seed, steps=left, progress=progress)
    for number, point in enumerate(points, len(records) + 1):
        files.save_model(point.model, kept_path(folder, number))
        spent += point.steps
    return spent


def save_kept(
    network: MaskedNetwork, folder: Path, records: Sequence[DecisionRecord], shown: Sequence[Example]
) -> list[Path]:
    """The network that the last decision kept, as a compact model among those of its minimization.

    Returns the files of its pictures (see `save_pictures`).
    """
    model = compaction.compact(network)
    files.save_model(model, kept_path(folder, records[-1].number))
    return save_pictures(model, network, folder, records, shown)


def save_pictures(
    model: keras.Model,
    network: MaskedNetwork,
    folder: Path,
    records: Sequence[DecisionRecord],
    shown: Sequence[Example],
) -> list[Path]:
    """Pictures of a network whose compact model is given, one per example; returns their files."""
    number = records[-1].number if records else 0
    for name, content in enumerate(network_pictures(model, network.active, records, shown), 1):
        files.write_bytes(pictures_folder(folder, number) / f"{name}.png", content)
    return pictures(folder, number)


def kept_path(folder: Path, number: int) -> Path:
    return folder / "kept" / f"{number:03}.keras"


def pictures(folder: Path, number: int) -> list[Path]:
    """The pictures of the network after a decision, by the number of the example; 0: the initial network."""
    return sorted(pictures_folder(folder, number).glob("*.png"))


def example(result: Mapping[str, Any], split: Split, initial: keras.Model, minimized: keras.Model) -> bytes:
    """A PNG: the first image, its target, and what both networks make of it, with their sizes and scores."""
    pictures = before_and_after(split.images[0], split.targets[0], initial, minimized, result)
    title = (
        f"{result['task']}, {result['strategy']}, seed {result['seed']}: the first validation image; "
        f"error: {result['loss']} on the test images"
    )
    return png(partial(draw_images, title, pictures))


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
    verdict = "accepted" if record.accepted else "reverted"
    left = ", ".join(map(str, record.filters_kept))
    return f"{record.number}. {record.alteration} {record.tried}: {verdict}, {record.reason}; filters {left}"
