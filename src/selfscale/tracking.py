"""Listens to trainings and minimizations and writes what they report to MLflow.

    minimization "random - seed 0"             kind=minimization
        decision "7 disable layer 1 ..."       kind=decision, verdict=accepted | reverted
            session "session 7"                kind=session
    training "training - seed 0"               kind=training

A filter in MLflow's pages looks at a run's own tags only, so each run repeats task, strategy and
seed. The runs of a decision are written at once when it is over, so that whatever is killed leaves
no run RUNNING but the minimization's own.
"""

from __future__ import annotations

from typing import NamedTuple

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
COMMIT = "mlflow.source.git.commit"
EVERYTHING = 50_000  # the most runs that MLflow hands out at once
NAME_LENGTH = 120


class Dataset(NamedTuple):
    """The images that a run uses: a name, and a digest of their content."""

    name: str
    digest: str
