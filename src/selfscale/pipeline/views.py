"""What DVC's own views show: small files from the comparison, for `dvc metrics`, `plots` and `exp show`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from selfscale import files
from selfscale.paths import REPORTS, Job
from selfscale.reporting import pareto
from selfscale.reporting.statistics import BASELINE, QUANTITIES, Result, score

Groups = Mapping[str, Mapping[str, Sequence[Result]]]  # results by task and strategy, with the baselines
Row = dict[str, Any]
DIGITS = 4


def write_views(
    groups: Groups, results: Mapping[str, Result], jobs: Sequence[Job], champions: Mapping[str, Result]
) -> None:
    """Write `reports/metrics`, a file for each task and strategy, and the tables in `reports/plots`.

    Args:
        groups: Their baselines get a file, too.
        results: By the names of the `jobs`.
        champions: By task, the result that the rule of `registry` chooses.
    """
    found = {
        f"{task}-{short(name)}": metrics(of_strategy, group[BASELINE])
        for task, group in groups.items()
        for name, of_strategy in group.items()
    }
    found["champions"] = {}
    for task, result in champions.items():  # in few letters: `dvc metrics show` has a column for each key
        left = result["macs_per_pixel"] / result["macs_per_pixel_initial"]
        found["champions"] |= {task: score(result, "test"), f"{task}%": 100 * left}
    shutil.rmtree(REPORTS / "metrics", ignore_errors=True)  # also those of former strategies
    for name, values in found.items():
        rounded = {key: float(f"{value:.{DIGITS}g}") for key, value in values.items()}
        files.write_json(REPORTS / "metrics" / f"{name}.json", rounded)
    tables = {"frontier": frontier(groups, results, jobs), "comparison": comparison(groups)}
    for title, rows in {"decisions": decisions(results, jobs), **tables}.items():
        content = list(rows)
        files.write_csv(
            REPORTS / "plots" / f"{title}.csv", [*content[0]], [[*row.values()] for row in content]
        )


def short(strategy: str) -> str:
    return "baseline" if strategy == BASELINE else strategy


def metrics(found: Sequence[Result], baselines: Sequence[Result]) -> dict[str, float]:
    """Means over the seeds; `ratio`: of the test score to the baseline's."""
    test, of_baseline = (fmean(score(result, "test") for result in each) for each in (found, baselines))
    return {
        "macs": fmean(QUANTITIES["macs_per_pixel"](result) for result in found),
        "parameters": fmean(QUANTITIES["parameters"](result) for result in found),
        "test": test,
        "ratio": test / of_baseline if of_baseline else 1.0,
    }


def decisions(results: Mapping[str, Result], jobs: Sequence[Job]) -> Iterator[Row]:
    """Every network on the way: its size and scores by decision."""
    for job in jobs:
        for network in pareto.networks_of(results[job.name]):
            keys = ("decision", "macs_per_pixel", "validation", "test")
            yield {
                "task": job.task,
                "strategy": job.strategy,
                "seed": job.seed,
                **{k: network[k] for k in keys},
            }


def frontier(groups: Groups, results: Mapping[str, Result], jobs: Sequence[Job]) -> Iterator[Row]:
    """The best networks of each size, means over the seeds."""
    for task in groups:
        fronts = pareto.mean_fronts([job for job in jobs if job.task == task], results)
        for name, front in fronts.items():
            for size, found in front:
                yield {"task": task, "strategy": name, "macs_per_pixel": size, "test": found.mean}


def comparison(groups: Groups) -> Iterator[Row]:
    """What each minimization and each baseline came to."""
    for task, group in groups.items():
        for name, found in group.items():
            for result in found:
                size, test = result["macs_per_pixel"], score(result, "test")
                row = {"task": task, "strategy": short(name), "seed": result["seed"]}
                yield row | {"macs_per_pixel": size, "test": test}
