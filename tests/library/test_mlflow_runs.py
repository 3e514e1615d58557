from __future__ import annotations

import numpy as np
from test_options import LABELS, TINY, X, dense

import selfscale


def test_a_run_with_one_below_it_for_each_decision(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    result = selfscale.minimize(dense(), (X, LABELS), (X, LABELS), tolerance=0.9, budget=TINY, mlflow=True)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == result.model.name]
    runs = client.search_runs([experiment.experiment_id])
    (whole,) = [run for run in runs if run.data.tags["kind"] == "minimization"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == whole.info.run_id]
    assert len(below) == len(result.decisions) == len(runs) - 1
    assert whole.data.params["tolerance"] == "0.9" and whole.info.status == "FINISHED"
    assert np.isclose(whole.data.metrics["score"], result.final.score)
    assert whole.data.metrics["cost"] == result.final.cost
    assert {each.path for each in client.list_artifacts(whole.info.run_id)} == {"model.keras", "report.html"}
