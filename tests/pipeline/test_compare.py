from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comparisons import SEEDS, baseline, fill, settings
from selfscale import files
from selfscale.errors import UserError
from selfscale.files import read_json, write_bytes, write_json
from selfscale.paths import Baseline, Job
from selfscale.pipeline import compare as report
from selfscale.settings import Settings

LABEL = "untouched baseline"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Callable[[Settings], Path]:
    """A folder with made-up results and baselines of all runs: cosine is a tenth worse than random."""
    monkeypatch.chdir(tmp_path)

    def fill_it(settings: Settings) -> Path:
        fill(settings)
        return tmp_path

    return fill_it


def test_the_table_has_a_line_per_result(project):
    chosen = settings()
    folder = project(chosen)
    page = report.compare(chosen)
    assert (folder / "reports" / "comparison.md").read_text(encoding="utf-8") == page
    (line,) = [line for line in page.splitlines() if line.startswith("| sobel | cosine | 0 |")]
    assert "5, 5 → 3, 2" in line
    assert "mae 0.005 → 0.0044 | 0.0045 |" in line  # beside the baseline's
    comparison = read_json(folder / "reports" / "comparison.json", "compare")
    assert list(comparison["results"]) == ["sobel-random-seed-0", "sobel-cosine-seed-0"]
    assert list(comparison["baseline"]) == ["sobel-seed-0"]


def test_strategies_are_summed_up_and_paired_with_random_and_baseline(project):
    chosen = settings(seeds=SEEDS)
    folder = project(chosen)
    page = report.compare(chosen)
    comparison = read_json(folder / "reports" / "comparison.json", "compare")
    summary = comparison["summary"]["sobel"]
    assert list(summary) == ["random", "cosine", LABEL]
    assert summary["random"]["test_score"]["mean"] == pytest.approx(0.012)
    assert summary[LABEL]["test_score"]["half_width"] == pytest.approx(0)
    paired = comparison["paired"]["sobel"]
    assert [(row["strategy"], row["against"]) for row in paired] == [
        ("cosine", "random"),
        ("random", LABEL),
        ("cosine", LABEL),
    ]
    assert paired[0]["test_score"]["mean"] == pytest.approx(0.1)
    assert paired[0]["test_score"]["p"] == pytest.approx(0.0625)
    assert paired[1]["macs_per_pixel"]["mean"] == -600
    # 0.004, 0.008, ..., 0.02: deviation 0.006325, t(0.975, 4) = 2.7764
    assert "| random | 5 | 2 | 281 | 275 | 0.012 ± 0.00785 | 0.012 ± 0.00785 |" in page.replace(" ± 0 ", " ")
    assert "| cosine | random | 10.0% ± 0.0% | 0.062 | 0 ± 0 | 1.000 |" in page
    assert "with 5 seeds it cannot be below 0.062" in page


def test_random_is_known_by_what_it_selects_by(project):
    chosen = settings(strategies=("cosine", "lots"))
    folder = project(chosen)
    report.compare(chosen)
    paired = read_json(folder / "reports" / "comparison.json", "compare")["paired"]["sobel"]
    assert ("cosine", "lots") in [(row["strategy"], row["against"]) for row in paired]


@pytest.mark.parametrize("strategies", [("cosine",), ("random",)])
def test_a_single_strategy_is_compared_with_the_baseline_alone(project, strategies):
    chosen = settings(strategies=strategies)
    folder = project(chosen)
    report.compare(chosen)
    (row,) = read_json(folder / "reports" / "comparison.json", "compare")["paired"]["sobel"]
    assert row["against"] == LABEL


def test_one_seed_proves_nothing_and_says_so(project):
    chosen = settings()
    folder = project(chosen)
    page = report.compare(chosen)
    assert "One seed: no interval" in page
    assert "With fewer than 5 seeds nothing can be concluded" in page
    assert "±" not in "".join(line for line in page.splitlines() if line.startswith("|"))
    summary = read_json(folder / "reports" / "comparison.json", "compare")["summary"]["sobel"]
    assert summary["random"]["filters"] == {"mean": 5.0, "half_width": None, "seeds": 1}


def note(job: Job, seconds: float) -> None:
    """As if the job's last execution had taken so long."""
    content = files.content(job.output)
    write_json(job.clock, {"key": "0" * 32, "started": 0.0, "content": content, "seconds": seconds})


def test_the_same_results_make_the_same_files(project):
    chosen = settings(seeds=(0, 1))
    reports = project(chosen) / "reports"
    kept = []
    for seconds in (1.0, 2.0):
        job = Job("sobel", "random", 0)
        note(job, seconds)
        report.compare(chosen)
        assert f"| sobel | random | 1 of 2 | {seconds:g} |" in (reports / "seconds.md").read_text()
        kept.append({path.name: path.read_bytes() for path in reports.rglob("*.*")})
        # What was measured is in the pages for people only.
        pages = kept[-1].pop("index.html"), kept[-1].pop("seconds.md")
        assert b"ms per megapixel" in pages[0]
    assert kept[0] == kept[1]
    names = {"comparison.json", "comparison.md", "frontier-sobel.png", "comparison.csv", "frontier.csv"}
    assert names <= set(kept[0])


def test_seconds_of_another_run_than_the_one_that_made_the_model_do_not_count(project):
    chosen = settings(strategies=("random",))
    folder = project(chosen)
    job = Job("sobel", "random", 0)
    note(job, 3.0)
    write_bytes(job.output / "more", b"from the cache")
    report.compare(chosen)
    assert "| sobel | random | 0 of 1 | – |" in (folder / "reports" / "seconds.md").read_text()  # noqa: RUF001


def test_a_missing_result_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="selfscale minimize sobel --strategy random --seed 4"):
        report.compare(settings(seeds=(4,)))
    assert not (tmp_path / "reports").exists()


def test_a_missing_or_shorter_baseline_names_the_command_that_makes_it(project):
    chosen = settings()
    folder = project(chosen)
    path = Baseline("sobel", 0).result
    write_json(path, baseline("sobel", 0, steps=5799))
    with pytest.raises(
        UserError,
        match="took 5800; run `selfscale budget` and `selfscale baseline sobel --seed 0` again",
    ):
        report.compare(chosen)
    path.unlink()
    with pytest.raises(UserError, match="selfscale baseline sobel --seed 0"):
        report.compare(chosen)
    assert not (folder / "reports").exists()
