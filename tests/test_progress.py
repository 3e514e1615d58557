"""What the core reports, the estimate of the time left, and both in words; with clocks of our own."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from rich.console import Console

from conftest import bind
from selfscale.cli.display import Shown, display
from selfscale.progress import EVERY, Lines, Moment, Pace, Progress, in_words, rounded, time_left
from selfscale.search.ablation import ablate
from selfscale.search.first_session import first_session
from selfscale.search.loop import minimize, most_steps
from selfscale.search_config import Limits, Minimization


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


MOMENT = Moment(
    job="minimize sobel-random-seed-0",
    decision=7,
    tried="disable layer 1 filter 3",
    step=300,
    steps=600,
    score=0.00412345,
    limit=0.0044,
    filters=(4, 3),
    done=4300,
    most=15000,
    seconds_left=230.0,
)
WORDS = (
    "minimize sobel-random-seed-0: at most 4 min left, decision 7, disable layer 1 filter 3, "
    "step 300 of 600, score 0.004123 (limit 0.0044), filters 4, 3"
)


def test_the_time_left_is_that_of_the_steps_left_at_the_pace_so_far(clock):
    pace = Pace(clock)
    assert pace.seconds_left(1000, 5000) is None  # of which nothing is known: another process did it
    clock.now = 30.0
    assert pace.seconds_left(1300, 5000) == pytest.approx(370.0)
    clock.now = 130.0
    assert pace.seconds_left(1500, 5000) == pytest.approx(3500 / 500 * 130)
    assert pace.seconds_left(5000, 5000) == 0.0
    assert pace.seconds_left(5001, 5000) is None  # what is wrong is not told
    assert pace.seconds_left(1500, None) is None


def test_all_parts_of_a_job_share_its_pace_and_another_job_has_its_own(clock):
    heard: list[Moment] = []
    progress = Progress(heard.append, Moment("a", most=100), Pace(clock))
    progress.of(tried="x").begin(10)
    clock.now = 5.0
    progress.of(tried="y").after(10).evaluated(10, 0.5)
    assert [moment.seconds_left for moment in heard] == [None, pytest.approx(5.0 / 20 * 80)]
    assert heard[1] == Moment(
        "a", tried="y", step=10, score=0.5, done=20, most=100, seconds_left=heard[1].seconds_left
    )
    other = progress.job("b", most=100)
    other.begin(50)
    other.end()
    assert heard[2:] == [Moment("b", steps=50, most=100), Moment("b", steps=50, most=100, over=True)]


def test_in_words():
    assert in_words(MOMENT) == WORDS
    assert in_words(Moment("train sobel-seed-0")) == "train sobel-seed-0: begins"
    early = MOMENT._replace(score=None, step=0, seconds_left=None)
    assert "step 0 of 600, score not known yet (limit 0.0044)" in in_words(early)
    assert time_left(MOMENT._replace(exact=True)) == "about 4 min left"
    assert [rounded(s) for s in (0.0, 0.2, 119.5, 120.5, 7200, 7201)] == [
        *("0 s", "1 s", "120 s", "3 min", "120 min", "3 h")
    ]


def test_where_there_is_no_terminal_a_job_gets_a_line_every_five_minutes(clock, caplog):
    lines = Lines(clock)
    with caplog.at_level(logging.INFO):
        for minute in range(12):
            clock.now = 60.0 * minute
            lines(MOMENT)
            lines(MOMENT._replace(job="other", over=minute == 4))
    assert EVERY == 300
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        *("minimize sobel-random-seed-0", "minimize sobel-random-seed-0", "other")
    ]
    assert caplog.records[0].getMessage() == WORDS


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_dumb_terminal_gets_lines(monkeypatch, term):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    with display() as progress:
        assert isinstance(progress._listener, Lines if term == "dumb" else Shown)


def rendered(shown: Shown, width: int = 200) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown.render())
    return capture.get().splitlines()


def test_a_job_is_shown_as_long_as_it_runs_and_its_stages_follow_each_other(clock):
    shown = Shown(clock)
    assert rendered(shown) == []
    shown(MOMENT._replace(job="train sobel-seed-0"))
    shown(MOMENT)
    assert rendered(shown) == [WORDS]
    assert "".join(line.rstrip() for line in rendered(shown, 60)).replace(" ", "") == WORDS.replace(" ", "")
    clock.now = 120.0  # and nothing was reported
    assert "at most 110 s left" in rendered(shown)[0]
    shown(MOMENT._replace(over=True))
    assert rendered(shown) == []


# -- what the core tells -------------------------------------------------------------------------


@pytest.fixture
def heard() -> list[Moment]:
    return []


def test_the_first_session_tells_its_cycles(trainer, heard):
    session, _ = first_session(trainer, 0, 0, Progress(heard.append))
    scores = [moment for moment in heard if moment.score is not None]
    assert [(moment.done, moment.score) for moment in scores] == list(session.scores)
    assert [moment.step for moment in heard[:3]] == [0, 30, 60]
    assert {moment.most for moment in heard} == {240}
    assert heard[0].tried == "cycle 1"
    assert heard[-1].done <= 240
    assert heard[-1].filters == (3, 4)


def test_a_minimization_tells_each_decision(trainer, heard):
    settings = Minimization(
        removal={"steps": 10, "sessions": "always"},
        layers={"tries": 0},
        last_session_steps=10,
        limits=Limits(steps=60),
    )
    initial = trainer.evaluator(trainer.validation)
    most = most_steps(settings)
    progress = Progress(heard.append, Moment("job", most=most))
    select = bind("random", {})
    decisions = [
        decision.record
        for decision in minimize(trainer, select, settings, seed=0, initial=initial, progress=progress)
    ]
    trained = [record for record in decisions if record.session.steps]
    for record in trained:
        told = [moment for moment in heard if moment.decision == record.number]
        assert told[0].score is None
        assert [moment.score for moment in told[1:] if moment.step] == [
            score for _, score in record.session.scores
        ]
        before = decisions[: record.number - 1]
        assert told[0].done == sum(earlier.steps for earlier in before)
        assert told[-1].done == told[0].done + record.session.steps
        assert {moment.tried for moment in told} == {f"{record.alteration} {record.tried}"}
        assert {moment.limit for moment in told} == {record.limit}
        kept = [earlier.filters_kept for earlier in before]
        assert {moment.filters for moment in told} == {kept[-1] if kept else (3, 4)}
    assert len(trained) > 2
    assert sum(record.steps for record in decisions) <= most == 70


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, None),
        ({"limits": {"steps": 1000}}, 1050),
        ({"limits": {"steps": 1000}, "speculative": 3}, 1000 + 2 * 300 + 50),
        ({"limits": {"decisions": 2}}, 2 * 300 + 50),
        ({"limits": {"decisions": 2}, "layers": {"tries": 0}}, 2 * 3 * 20 + 50),
        ({"limits": {"decisions": 2, "steps": 100}}, 150),
    ],
    ids=str,
)
def test_the_limits_say_how_many_steps_it_takes_at_most(changes, most):
    settings = {
        "removal": {"steps": 20},
        "layers": {"steps": 300},
        "last_session_steps": 50,
        "limits": {"steps": None, "decisions": None},
        "max_cycles": 3,
    }
    assert most_steps(Minimization(**settings | changes)) == most


def test_the_worth_of_filters_tells_each_test(trainer, heard):
    records = list(ablate(trainer, 4, seed=0, progress=Progress(heard.append)))
    ends = [moment for moment in heard if moment.step == 4]
    assert [moment.tried for moment in ends] == [
        " ".join(map(str, filter(None, (record.test, record.filter)))) for record in records
    ]
    assert [moment.done for moment in ends] == np.cumsum([4] * len(records)).tolist()
