"""Writes the worth of filters to MLflow.

worth - seed 0                                           kind=worth
    disabled layer 0 filter 3                            kind=worth_test
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfscale.entries import Point, curves
from selfscale.owners import ROOT_RUN
from selfscale.store import Client, store_errors
from selfscale.tracking import PARENT, Dataset, TrackedRun, milliseconds, write
from selfscale.worth import WorthRecord


class WorthRun(TrackedRun):
    """The run of a network's worth tests, `kind=worth`; `started` in seconds since 1970.

    The control session's curves and numbers are its own; each test is a run below it.
    """

    def __init__(
        self,
        client: Client,
        *,
        task: str,
        seed: int,
        settings: Mapping[str, Any],
        dataset: Dataset | None = None,
        started: float | None = None,
    ) -> None:
        tags = {"kind": "worth", "task": task, "seed": str(seed)}
        super().__init__(
            client, tags, f"worth - seed {seed}", settings=settings, dataset=dataset, started=started
        )

    def finish(self, records: Sequence[WorthRecord], artifacts: Sequence[Path], note: str = "") -> None:
        """Log each test as a run, the control on this one, and the files; describe the run and end it."""
        control = [record for record in records if record.filter is None]
        for record in records:
            if record.filter is not None:
                self._test(record)
        points = [point for record in control for point in [*curves(record.session), *numbers(record)]]
        self._finish(points, artifacts, note)

    @store_errors()
    def _test(self, record: WorthRecord) -> None:
        assert record.filter is not None
        layer, index = record.filter
        what = {"test": record.test, "layer": str(layer), "filter": str(index)}
        tags = self.tags | what | {"kind": "worth_test", PARENT: self.run_id, ROOT_RUN: self.run_id}
        end = milliseconds()
        start = end - round(record.session.seconds * 1000)
        name = f"{record.test} {record.filter}"
        run_id = str(self.client.create_run(self.experiment_id, start, tags, name).info.run_id)
        params = what | {"task": self.tags["task"], "seed": self.tags["seed"], "ended": record.session.ended}
        if record.successor:
            params["successor"] = str(record.successor.filter)
        write(self.client, run_id, [*curves(record.session), *numbers(record)], params)
        self.client.set_terminated(run_id, "FINISHED", end)


def numbers(record: WorthRecord) -> list[Point]:
    """What a test measured, at its last step, so that `score` and its curve end alike."""
    found = {
        "reference": record.reference,
        "score_before_training": record.score_before_training,
        "difference": record.difference.value,
        "difference_low": record.difference.low,
        "difference_high": record.difference.high,
        "seconds": record.session.seconds,
    }
    if record.against_control:
        found["against_control"] = record.against_control.value
        found["against_control_low"] = record.against_control.low
        found["against_control_high"] = record.against_control.high
    if record.successor:
        found["similarity"] = record.successor.similarity
        found["similarity_before"] = record.successor.before
    if record.relearned is not None:
        found["relearned"] = record.relearned
    for movement in record.movements:
        found[f"moved_{movement.filter.layer}_{movement.filter.index}"] = movement.distance
    return [Point(name, value, record.session.steps) for name, value in found.items()]
