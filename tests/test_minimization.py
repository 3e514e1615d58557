from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from conftest import new_trainer
from selfscale.acceptance import Verdict, reason, reference_of
from selfscale.config import Acceptance, Minimization
from selfscale.errors import UserError
from selfscale.evaluation import Evaluation
from selfscale.minimization import minimize
from selfscale.records import DecisionRecord, Filter
from selfscale.selection import bind
from selfscale.snapshot import Snapshot
from selfscale.training import Plan
from stores import record as a_record
from test_snapshot import assert_equal, everything

SETTINGS = Minimization(session_steps=12, last_session_steps=10, tolerance=0.1)


@pytest.fixture
def trained(train_split, validation_split):
    trainer = new_trainer(train_split, validation_split)
    trainer.session(Plan(60, 1), np.random.default_rng(0))
    return trainer


def run(trainer, settings=SETTINGS, select="sequential", seed=0) -> list[DecisionRecord]:
    reference = trainer.evaluator(trainer.validation)
    return [r for r, _ in minimize(trainer, bind(select, {}), settings, seed=seed, initial=reference)]


def without_seconds(records: list[DecisionRecord]) -> list[tuple]:
    return [(r.filters, r.score, r.accepted, r.metrics, r.session.losses) for r in records]


def test_a_limit_that_nothing_meets_steps_back_from_everything(trained):
    weights = trained.network.state().weights
    unreachable = Evaluation({"mae": np.array([[1e-9, 1.0]] * 5)}, 0.0, 1.0)
    steps = minimize(trained, bind("sequential", {}), SETTINGS, seed=0, initial=unreachable)
    records = [record for record, _ in steps]
    assert [r.filters[0] for r in records[:-1]] == trained.network.removable()  # each once
    assert not any(r.accepted for r in records)
    assert all("not within" in r.reason or "stopped early" in r.reason for r in records)
    assert_equal(trained.network.state().weights, weights)


def test_boundless_tolerance_removes_down_to_one_filter_a_layer(trained):
    records = run(trained, SETTINGS.model_copy(update={"tolerance": 1e9}))
    assert trained.network.filters_kept == (1, 1)
    assert [r.filters_kept for r in records if r.filters][-1] == (1, 1)
    assert sum(r.accepted for r in records if r.filters) == 5
    assert records[-1].parameters == 9 + 1 + 9 + 1 + 9 + 1
    assert records[-1].macs_per_pixel == 27


def test_a_failed_filter_is_not_tried_again_before_another_was_removed(trained):
    records = run(trained, select="random", settings=SETTINGS.model_copy(update={"tolerance": 0.02}))
    failed: set[Filter] = set()
    for record in (r for r in records if r.filters):
        assert record.filters[0] not in failed
        failed = set() if record.accepted else failed | {record.filters[0]}
    # It ended because every candidate had failed.
    assert set(trained.network.removable()) <= failed


def test_records_tell_where_each_trial_started_and_what_is_left(trained):
    records = run(trained, SETTINGS.model_copy(update={"tolerance": 0.5}))
    started, kept = 0, (3, 4)
    for number, record in enumerate(records, start=1):
        assert (record.number, record.started_from) == (number, started)
        assert record.limit >= record.score or not record.accepted
        if record.accepted:
            started = number
            kept = tuple(k - sum(f.layer == i for f in record.filters) for i, k in enumerate(kept))
        assert record.filters_kept == kept


def test_an_interrupted_minimization_ends_like_an_uninterrupted_one(train_split, validation_split):
    def start():
        trainer = new_trainer(train_split, validation_split)
        trainer.session(Plan(60, 1), np.random.default_rng(0))
        return trainer

    whole, broken = start(), start()
    expected = run(whole, select="random", seed=3)
    reference = broken.evaluator(broken.validation)
    select = bind("random", {})
    history: list[DecisionRecord] = []
    while not (history and not history[-1].filters):  # only one decision before each interruption
        decisions = minimize(broken, select, SETTINGS, seed=3, initial=reference, history=history)
        history.append(next(decisions)[0])
        decisions.close()
    assert without_seconds(history) == without_seconds(expected)
    assert_equal(everything(broken), everything(whole))
    assert not list(minimize(broken, select, SETTINGS, seed=3, initial=reference, history=history))


def test_limits_on_decisions_and_steps(trained):
    assert len(run(trained, SETTINGS.model_copy(update={"max_decisions": 2}))) == 3  # and the last session
    records = run(trained, SETTINGS.model_copy(update={"max_steps": 40, "last_session_steps": 0}))
    assert sum(r.session.steps for r in records) == 36


def test_a_user_strategy_decides_the_order(trained):
    reference = trained.evaluator(trained.validation)

    def last_first(subject):
        return np.arange(len(subject.candidates), dtype=float)

    run_order = [
        r.filters
        for r, _ in minimize(
            trained, last_first, SETTINGS.model_copy(update={"max_decisions": 1}), seed=0, initial=reference
        )
    ]
    assert run_order == [(Filter(1, 3),), ()]


@pytest.mark.parametrize("answer", [[1.0], [[1.0] * 7], [float("nan")] * 7])
def test_a_strategy_that_does_not_score_each_candidate_is_named(trained, answer):
    initial = trained.evaluator(trained.validation)
    with pytest.raises(UserError, match="one finite number for each of 7 candidates"):
        next(minimize(trained, lambda subject: answer, SETTINGS, seed=0, initial=initial))


@pytest.mark.parametrize(
    ("ended", "verdict", "words"),
    [
        ("completed", Verdict(True, 0.05, 0.05), "score +5.0%, within the tolerance 10.0%"),
        ("completed", Verdict(False, 0.2, 0.2), "score +20.0%, not within"),
        ("completed", Verdict(False, 0.05, 0.12), "+5.0% (at most +12.0% with confidence), not within"),
        ("dead", Verdict(True, -0.5, -0.5), "dead"),
        ("hopeless", Verdict(False, 2.0, 2.0), "stopped early"),
        ("non-finite", Verdict(False, float("nan"), float("nan")), "not a finite number"),
    ],
)
def test_reasons_in_words(ended, verdict, words):
    assert words in reason(ended, verdict, 0.1)


def test_what_a_trial_is_compared_with():
    def kept(score: float, accepted: bool) -> DecisionRecord:
        return dataclasses.replace(a_record(1, accepted=accepted), image_sums=((score, 1.0), (score, 1.0)))

    initial = np.array([[2.0, 1.0], [2.0, 1.0]])
    records = [kept(1.0, True), kept(0.5, False), kept(1.5, True)]
    for name, score in (("initial", 2.0), ("previous", 1.5), ("best", 1.0)):
        np.testing.assert_array_equal(reference_of(name, initial, records), [[score, 1.0]] * 2)
        np.testing.assert_array_equal(reference_of(name, initial, []), initial)


def test_a_trial_that_comes_close_trains_on(trained):
    initial = trained.evaluator(trained.validation)
    state = Snapshot.take(trained)
    for near, cycles in ((0.0, 1), (1e9, 3)):
        state.restore(trained)
        update = {"tolerance": 0.0, "near": near, "max_decisions": 1, "last_session_steps": 0}
        settings = SETTINGS.model_copy(update=update)
        unreachable = Evaluation({"mae": initial.sums["mae"] * [0.01, 1.0]}, 0.0, 1.0)
        (first, _), *_ = minimize(trained, bind("sequential", {}), settings, seed=0, initial=unreachable)
        assert first.session.steps == cycles * 12
        assert [step for step, _ in first.session.scores] == list(range(6, cycles * 12 + 1, 6))


def test_a_trial_that_is_dead_is_stepped_back_from(trained):
    """The only filter that leads to the output is removed from under a negative bias."""
    trained.network.model.layers[-1].bias.assign([-100.0])
    unreachable = Evaluation({"mae": np.array([[1e9, 1.0]] * 5)}, 0.0, 1.0)
    settings = SETTINGS.model_copy(update={"max_decisions": 1, "last_session_steps": 0})
    records = [r for r, _ in minimize(trained, bind("sequential", {}), settings, seed=0, initial=unreachable)]
    assert [(r.session.ended, r.accepted) for r in records] == [("dead", False)]


def test_non_inferiority_refuses_what_the_threshold_accepts(trained):
    """A tolerance just above the mean loss: within on average, not with confidence."""
    initial = trained.evaluator(trained.validation)
    state = Snapshot.take(trained)
    short = SETTINGS.model_copy(
        update={"max_decisions": 1, "last_session_steps": 0, "tolerance": 100.0, "max_cycles": 1}
    )
    first, _ = next(minimize(trained, bind("sequential", {}), short, seed=0, initial=initial))
    verdicts = []
    for rule in ("threshold", "non_inferiority"):
        state.restore(trained)
        update = {"tolerance": first.relative_loss + 1e-9, "acceptance": Acceptance(rule=rule)}
        again = minimize(
            trained, bind("sequential", {}), short.model_copy(update=update), seed=0, initial=initial
        )
        verdicts.append(next(again)[0])
    assert [v.accepted for v in verdicts] == [True, False]
    assert verdicts[0].relative_loss == verdicts[1].relative_loss < verdicts[1].bound
