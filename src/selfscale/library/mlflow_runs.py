"""A minimization in MLflow: a run, and one below it for each decision."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from selfscale import files

if TYPE_CHECKING:
    from selfscale.library.plan import Plan
    from selfscale.library.result import MinimizationResult

PARENT = "mlflow.parentRunId"


def log_result(result: MinimizationResult, plan: Plan) -> None:
    """Log a result in the store of this folder, or that of MLFLOW_TRACKING_URI.

    The experiment has the model's name.

    Raises:
        UserError: The store can't be opened.
    """
    from selfscale.tracking.store import experiment, open_store  # imports MLflow, which takes seconds

    client = open_store()
    place = experiment(client, result.model.name)
    tags = {"kind": "minimization", "mlflow.note.content": result.summary()}
    name = f"{getattr(plan.strategy, '__name__', 'own')} - seed {plan.seed}"
    run = client.create_run(place, tags=tags, run_name=name)
    for key in ("tolerance", "confidence", "protect", "round_to", "session_steps", "long_steps", "seed"):
        client.log_param(run.info.run_id, key, getattr(plan, key))
    first = result.initial
    initial = {"score": first.score, "cost": first.cost, "parameters": first.size.parameters}
    for key, value in initial.items():
        client.log_metric(run.info.run_id, key, value, step=0)
    for decision in result.decisions:
        title = f"{decision.number} {decision.tried} - {decision.outcome}"
        below = {
            "kind": "decision",
            "verdict": decision.outcome,
            PARENT: run.info.run_id,
            "reason": decision.reason,
        }
        child = client.create_run(place, tags=below, run_name=title)
        values = {
            "score": decision.score,
            "cost": decision.size.cost,
            "parameters": decision.size.parameters,
            "steps": decision.steps,
        }
        for key, value in values.items():
            client.log_metric(child.info.run_id, key, value)
            if decision.accepted:
                client.log_metric(run.info.run_id, key, value, step=decision.number)
        client.set_terminated(child.info.run_id, "FINISHED")
    with tempfile.TemporaryDirectory() as folder:
        result.report(Path(folder) / "report.html")
        files.save_model(result.model, Path(folder) / "model.keras")
        client.log_artifacts(run.info.run_id, folder)
    client.set_terminated(run.info.run_id, "FINISHED")
