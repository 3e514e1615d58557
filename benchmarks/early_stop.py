"""How many trials the early stop of hopeless trials would have decided otherwise.

Run the pipeline with full-length trials first, then this:

    dvc repro    # with minimization.stop_hopeless: false in params.yaml
    python benchmarks/early_stop.py

Each session of every minimization is replayed: the rule of `selfscale.search.early_stopping` sees what
it would have seen then, and its answer is compared with how the full trial ended. A false rejection is a
trial that was kept, and that the rule would have stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scipy.stats import beta

from selfscale import files
from selfscale.errors import UserError
from selfscale.nn.trainer import Plan
from selfscale.paths import Job
from selfscale.pipeline.compare import read_results
from selfscale.search.early_stopping import hopeless_scores
from selfscale.settings import Settings, load


def replay(
    decisions: list[dict], curves: list[list[float]], settings: Settings
) -> list[tuple[bool, bool, int]]:
    """(stopped, kept, steps saved) of each trial with a session, in order."""
    steps_of = {"remove_layer": settings.minimization.layers.steps}
    outcomes = []
    known = list(curves)
    for decision in decisions:
        scores = dict(decision["session"]["scores"])
        if scores and decision["alteration"] != "train":
            plan = Plan(
                steps_of.get(decision["alteration"], settings.minimization.removal.steps),
                settings.training.evaluations,
            )
            stops = hopeless_scores(known, plan, decision["limit"])
            # Of the first cycle; the session of a layer's removal ends as soon as it can be kept.
            seen = [step for step in plan.pauses if step in scores]
            stopped = next((step for step in seen if scores[step] > stops.get(step, float("inf"))), None)
            saved = decision["session"]["steps"] - stopped if stopped else 0
            outcomes.append((stopped is not None, decision["accepted"], saved))
        if scores:
            known.append(list(scores.values()))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    settings = load(parser.parse_args().params)
    if settings.minimization.stop_hopeless:
        raise UserError("minimization.stop_hopeless: is true; only full-length trials can be replayed")
    outcomes: list[tuple[bool, bool, int]] = []
    steps = 0
    for result in read_results(settings).values():
        job = Job(result["task"], result["strategy"], result["seed"])
        decisions = files.read_json(job.output / "decisions.json", job.command)
        rows = files.read_csv(job.training.output / "curve.csv", f"train {job.task} --seed {job.seed}")
        scores = [float(row["score"]) for row in rows]
        length = settings.training.evaluations
        cycles = [scores[start : start + length] for start in range(0, len(scores), length)]
        outcomes += replay(decisions, cycles, settings)
        steps += result["training_steps"]
    stopped = sum(stop for stop, _, _ in outcomes)
    false = sum(stop and kept for stop, kept, _ in outcomes)
    upper = beta.ppf(0.95, false + 1, len(outcomes) - false) if false < len(outcomes) else 1.0
    print(f"trials: {len(outcomes)}, kept: {sum(kept for _, kept, _ in outcomes)}")
    print(f"stopped by the rule: {stopped}, of these kept at full length (false rejections): {false}")
    print(
        f"decided otherwise: {false / len(outcomes):.2%} of the trials (at most {upper:.2%}, 95 % confidence)"
    )
    print(f"training steps saved: {sum(saved for *_, saved in outcomes)} of {steps}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
