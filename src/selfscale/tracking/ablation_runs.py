"""Writes the worth of filters to MLflow.

worth - seed 0                                           kind=worth
    disabled layer 0 filter 3                            kind=worth_test
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfscale.tracking.entries import Point, curves
from selfscale.tracking.owners import ROOT_RUN
from selfscale.tracking.runs import PARENT, TrackedRun, milliseconds, write
from selfscale.tracking.store import Client, store_errors

if TYPE_CHECKING:  # it imports TensorFlow
    from selfscale.search.ablation import AblationRecord


class WorthRun(TrackedRun):
    """The run of a network's worth tests, `kind=worth`; its parameters are as in TrackedRun.

    The baseline session's curves and numbers are its own; each test is a run below it.
    """

    def __init__(self, client: Client, *, task: str, seed: int, **run: Any) -> None:
        tags = {"kind": "worth", "task": task, "seed": str(seed)}
        super().__init__(client, tags, f"worth - seed {seed}", **run)
        for child in self._children() if self.resumed else []:
            client.delete_run(child.info.run_id)  # of a `finish` that was cut off, and comes again

    def finish(
        self,
        records: Sequence[AblationRecord],
        note: str,
        files: Sequence[Path] = (),
        at: float | None = None,
    ) -> None:
        """Log each test as a run, the baseline on this one, and the files; describe the run and end it."""
        baseline = [record for record in records if record.filter is None]
        for record in records:
            if record.filter is not None:
                self._test(record, at)
        points = [point for record in baseline for point in [*curves(record.session), *numbers(record)]]
        self._finish(points, files, note, at)

    @store_errors()
    def _test(self, record: AblationRecord, at: float | None) -> None:
        assert record.filter is not None
        layer, index = record.filter
        what = {"test": record.test, "layer": str(layer), "filter": str(index)}
        tags = self.tags | what | {"kind": "worth_test", PARENT: self.run_id, ROOT_RUN: self.run_id}
        end = milliseconds(at)
        start = end - round(record.session.seconds * 1000)
        name = f"{record.test} {record.filter}"
        run_id = str(self.client.create_run(self.experiment_id, start, tags, name).info.run_id)
        params = what | {"task": self.tags["task"], "seed": self.tags["seed"], "ended": record.session.ended}
        if record.successor:
            params["successor"] = str(record.successor.filter)
        write(self.client, run_id, [*curves(record.session), *numbers(record)], params, at)
        self.client.set_terminated(run_id, "FINISHED", end)


def numbers(record: AblationRecord) -> list[Point]:
    """What a test measured, at its last step, so that `score` and its curve end alike."""
    found = {
        "reference": record.reference,
        "score_before_training": record.score_before_training,
        "difference": record.difference.value,
        "difference_low": record.difference.low,
        "difference_high": record.difference.high,
        "seconds": record.session.seconds,
    }
    if record.against_baseline:
        found["against_baseline"] = record.against_baseline.value
        found["against_baseline_low"] = record.against_baseline.low
        found["against_baseline_high"] = record.against_baseline.high
    if record.successor:
        found["similarity"] = record.successor.similarity
        found["similarity_before"] = record.successor.before
    if record.relearned is not None:
        found["relearned"] = record.relearned
    for movement in record.movements:
        found[f"moved_{movement.filter.layer}_{movement.filter.index}"] = movement.distance
    return [Point(name, value, record.session.steps) for name, value in found.items()]
