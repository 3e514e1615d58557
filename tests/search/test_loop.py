from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import bind, new_trainer
from networks import assert_equal, everything, plain_removal
from selfscale.decisions import MERGE, REMOVE_LAYER, TRAIN, DecisionRecord, Filter, layers_of
from selfscale.errors import UserError
from selfscale.nn import redundancy
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.compaction import removed_filters
from selfscale.nn.fcn import build, filters_per_layer, size
from selfscale.nn.metrics import Evaluation
from selfscale.nn.trainer import Plan, Trainer
from selfscale.pipeline import resume
from selfscale.search import attempt, loop
from selfscale.search.acceptance import Judge, Verdict, reaches_target, reference_of, threshold
from selfscale.search.frontier import frontier
from selfscale.search.growth import GROWTH_STRATEGIES
from selfscale.search.growth_trials import Growing
from selfscale.search.loop import Decision, minimize
from selfscale.search_config import Acceptance, Growth, LayerRemoval, Limits, Minimization, Removal, Scaling
from stores import record as a_record

SETTINGS = Minimization(
    removal=plain_removal(alterations=["disable"], group=1, steps=12),
    learning_rate=0.005,
    layers=LayerRemoval(tries=2, steps=16, learning_rate=0.005),
    last_session_steps=10,
    tolerance=0.1,
    near=0.0,
    max_cycles=1,
    acceptance=Acceptance(rule="threshold", reference="initial"),
    stop_hopeless=False,
    limits=Limits(steps=None),
)
NO_LAYERS = {"layers": LayerRemoval(tries=0)}
# Kept if it is the best so far: as the network is still getting better, some trials are and some are not.
MIXED = {"tolerance": 0.0, "acceptance": Acceptance(rule="threshold", reference="best")}
FIRST_ONLY = {"limits": Limits(decisions=1), "last_session_steps": 0}
UNREACHABLE = Evaluation({"mae": np.array([[1e-9, 1.0]] * 5)}, 0.0, 1.0)
BOUNDLESS = Evaluation({"mae": np.array([[1e9, 1.0]] * 5)}, 0.0, 1.0)


def changed(**update: Any) -> Minimization:
    return SETTINGS.model_copy(update=update)


@pytest.fixture(scope="module")
def start(train_split, validation_split) -> Callable[[], Trainer]:
    """Brings the one trainer, compiled once, back to where it had trained a network."""
    trainer = new_trainer(train_split, validation_split)
    trainer.session(Plan(60, 1), np.random.default_rng(0))
    state = Checkpoint.take(trainer)

    def start() -> Trainer:
        state.restore(trainer)
        return trainer

    return start


@pytest.fixture
def trained(start) -> Trainer:
    return start()


@pytest.fixture
def nothing_is_merged(monkeypatch):
    """Silent filters, of which a network as small as this one often has some, would come first."""
    monkeypatch.setattr(redundancy, "find", lambda *_: None)


def decisions(
    trainer, settings=SETTINGS, select="sequential", seed=0, initial=None, **named
) -> list[Decision]:
    initial = initial or trainer.evaluator(trainer.validation)
    select = bind(select, {}) if isinstance(select, str) else select
    return list(minimize(trainer, select, settings, seed=seed, initial=initial, **named))


def run(*arguments, **named) -> list[DecisionRecord]:
    return [decision.record for decision in decisions(*arguments, **named)]


def without_seconds(records: list[DecisionRecord]) -> list[DecisionRecord]:
    return [
        dataclasses.replace(record, session=dataclasses.replace(record.session, seconds=0.0))
        for record in records
    ]


def layer_trials(found: list[DecisionRecord]) -> list[tuple[int, bool]]:
    return [(r.filters[0].layer, r.accepted) for r in found if r.alteration == REMOVE_LAYER]


# -- stepping back -------------------------------------------------------------------------------


def test_a_limit_that_nothing_meets_steps_back_from_everything(trained, nothing_is_merged):
    before, model = everything(trained), trained.network.model
    found = decisions(trained, initial=UNREACHABLE)
    records = [decision.record for decision in found]
    tries = layer_trials(records)
    assert sorted(tries) == [(0, False), (0, False), (1, False), (1, False)]
    # One layer before the filters, the rest behind them.
    assert [number for number, r in enumerate(records) if r.alteration == REMOVE_LAYER] == [0, 8, 9, 10]
    alone = [r.filters[0] for r in records if r.alteration == "disable"]
    assert sorted(alone) == trained.network.removable()  # each once
    assert records[-1].alteration == TRAIN
    assert not any(r.accepted for r in records)
    assert {r.filters_kept for r in records} == {(3, 4)}
    assert all(r.started_from == 0 for r in records)
    assert all(("not within" in r.reason) == (r.session.ended == "completed") for r in records)
    assert all(decision.trainer is trained for decision in found)
    assert trained.network.model is model
    assert_equal(everything(trained), before)


@pytest.mark.parametrize("setting", ["disable", "disable_and_freeze", "group"])
def test_every_trial_of_filters_is_stepped_back_from_exactly(trained, nothing_is_merged, setting):
    removal = {
        "group": plain_removal(group=3, steps=4),
        "disable": plain_removal(alterations=["disable"], group=1, steps=4),
        "disable_and_freeze": plain_removal(alterations=["disable_and_freeze"], group=1, steps=4),
    }[setting]
    settings = changed(removal=removal, limits=Limits(decisions=4), last_session_steps=0, **NO_LAYERS)
    before = everything(trained)
    steps = minimize(trained, bind("random", {}), settings, seed=1, initial=UNREACHABLE)
    for record, trained_to, trainer, *_ in steps:
        assert not record.accepted and trainer is trained
        assert_equal(everything(trained), before)
        altered = np.concatenate([~active for active in trained_to.network.active])
        assert altered.sum() == len(record.filters)
        if record.number == 1 and setting == "group":
            assert len(record.filters) == 3
    assert trained.network.frozen() == []


def test_a_layer_that_is_not_missed_enough_comes_back_as_it_was(trained, nothing_is_merged):
    """The trial's network is another one, so the one before is the same trainer, to the last bit."""
    trained.network.disable(Filter(1, 2))
    trained.session(Plan(6, 1), np.random.default_rng(5))  # Adam has momentum
    before = everything(trained)
    (decision,) = decisions(trained, changed(**FIRST_ONLY), initial=UNREACHABLE)
    record, without_layer, trainer, *_ = decision
    assert (record.alteration, record.accepted) == (REMOVE_LAYER, False)
    layer = record.filters[0].layer
    assert record.filters == tuple(filter for filter in trained.network.removable() if filter.layer == layer)
    assert record.filters_kept == (3, 3)
    assert record.parameters == trained.network.size().parameters
    assert trainer is trained
    assert_equal(everything(trained), before)
    assert without_layer.network.layers == (1 - layer,)


# -- layers --------------------------------------------------------------------------------------


def test_boundless_tolerance_ends_with_one_filter_in_one_layer(trained):
    found = decisions(trained, changed(tolerance=1e9))
    records = [decision.record for decision in found]
    kept = found[-1].trainer
    assert kept.network.filters_kept == records[-1].filters_kept
    assert sorted(kept.network.filters_kept) == [0, 1]
    assert all(r.accepted for r in records if r.filters)
    assert len(layer_trials(records)) == 1
    assert (records[-1].parameters, records[-1].macs_per_pixel) == (9 + 1 + 9 + 1, 18)
    assert kept.network.size() == (20, 18)
    assert kept.evaluate_loss() == pytest.approx([r for r in records if r.accepted][-1].score, rel=1e-5)
    assert trained.network.layers == (0, 1)  # the layer was removed in another network


def test_down_from_five_layers(train_split, validation_split):
    model = build([2, 3, 2, 1, 2], kernel=3, mean=0.1, deviation=0.2, seed=(3,))
    trainer = new_trainer(train_split, validation_split, model)
    settings = changed(
        tolerance=1e9,
        removal=plain_removal(group="adaptive", steps=2),
        layers=LayerRemoval(tries=2, steps=4),
        last_session_steps=2,
    )
    found = decisions(trainer, settings, select="leave_one_out", initial=BOUNDLESS)
    assert sum(found[-1].trainer.network.filters_kept) == 1
    assert len(found[-1].trainer.network.layers) == 1
    assert len(layers_of(found[0].record.filters)) == 4  # at once
    assert [accepted for _, accepted in layer_trials([d.record for d in found])] == [True]


def test_a_removed_layer_makes_another_network_and_trainer(trained, nothing_is_merged):
    settings = changed(tolerance=1e9, limits=Limits(decisions=2), last_session_steps=4)
    first, second, last = decisions(trained, settings, initial=BOUNDLESS, select="leave_one_out")
    assert first.trainer is not trained
    assert second.trainer is last.trainer is first.trainer
    network, gone = last.trainer.network, first.record.filters[0].layer
    (left,) = network.layers
    assert {left, gone} == {0, 1} and network.widths == (3, 4)
    width = network.widths[left]
    assert first.record.filters == tuple(Filter(gone, i) for i in range(network.widths[gone]))
    assert first.record.filters_kept[left] == width and first.record.filters_kept[gone] == 0
    assert second.record.filters[0].layer == left and sum(second.record.filters_kept) == width - 1
    assert second.record.session.steps == 12 and last.record.session.steps == 4
    assert first.record.parameters == width * 10 + width * 9 + 1
    assert trained.network.layers == (0, 1)
    for name in ("train", "validation", "settings", "loss"):
        assert getattr(first.trainer, name) is getattr(trained, name)


def test_a_layer_is_tried_again_from_another_start(trained, nothing_is_merged):
    settings = changed(layers=LayerRemoval(tries=3, steps=4), last_session_steps=0)
    records = run(trained, settings, initial=UNREACHABLE)
    assert [r.session.steps for r in records if r.alteration == REMOVE_LAYER] == [4] * 6
    for layer in (0, 1):
        starts = [
            r.score_before_training
            for r in records
            if r.alteration == REMOVE_LAYER and r.filters[0].layer == layer
        ]
        assert len(set(starts)) == 3


# -- the order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("select", ["random", "cosine"])
def test_a_failed_filter_is_not_tried_again_before_something_was_changed(trained, select):
    found = decisions(trained, changed(tolerance=0.02, layers=LayerRemoval(tries=1, steps=4)), select=select)
    failed: set[tuple[Filter, ...]] = set()
    for record in (d.record for d in found if d.record.filters):
        assert record.filters not in failed
        failed = set() if record.accepted else failed | {record.filters}
    # It ended because every candidate had failed.
    assert {(filter,) for filter in found[-1].trainer.network.removable()} <= failed


def test_records_tell_where_each_trial_started_and_what_is_left(trained):
    records = run(trained, changed(**MIXED, removal=plain_removal(group=1, steps=2)))
    started, kept = 0, (3, 4)
    for number, record in enumerate(records, start=1):
        assert (record.number, record.started_from) == (number, started)
        assert record.limit >= record.score or not record.accepted
        if record.accepted:
            started = number
            kept = tuple(k - sum(f.layer == i for f in record.filters) for i, k in enumerate(kept))
        assert record.filters_kept == kept
    assert any(r.accepted for r in records) and not all(r.accepted for r in records)


def test_limits_on_decisions_steps_and_size(trained, nothing_is_merged):
    assert len(run(trained, changed(limits=Limits(decisions=2)), initial=UNREACHABLE)) == 3  # and the last
    records = run(
        trained,
        changed(limits=Limits(steps=40), last_session_steps=0, **NO_LAYERS),
        initial=UNREACHABLE,
    )
    assert sum(r.session.steps for r in records) == 36
    limits = Limits(macs_per_pixel=60.0)
    records = run(trained, changed(limits=limits, tolerance=1e9), initial=BOUNDLESS)
    sizes = [r.macs_per_pixel for r in records if r.filters]
    assert sizes[-1] <= 60 and all(size > 60 for size in sizes[:-1])


def test_a_user_strategy_decides_the_order(trained, nothing_is_merged):
    def last_first(subject):
        return np.arange(len(subject.candidates), dtype=float)

    records = run(trained, changed(limits=Limits(decisions=1), **NO_LAYERS), select=last_first)
    assert [r.filters for r in records] == [(Filter(1, 3),), ()]


@pytest.mark.parametrize("answer", [[1.0], [[1.0] * 7], [float("nan")] * 7])
def test_a_strategy_that_does_not_score_each_candidate_is_named(trained, nothing_is_merged, answer):
    with pytest.raises(UserError, match="one finite number for each of 7 candidates"):
        run(trained, changed(**NO_LAYERS), select=lambda subject: answer)


@pytest.mark.parametrize("widths", [[1], []], ids=str)
def test_a_network_in_which_nothing_may_be_removed(train_split, validation_split, widths):
    trainer = new_trainer(train_split, validation_split, build(widths, kernel=3))
    with pytest.raises(UserError, match=r"network 'fcn': nothing may be removed") as caught:
        run(trainer)
    assert "\n" not in str(caught.value)


# -- what can go without a session ---------------------------------------------------------------


def test_a_filter_that_never_fires_goes_first_and_without_a_session(trained):
    convolution = trained.network.block(1).convolution
    bias = convolution.bias.numpy().copy()
    bias[2] = -100.0
    convolution.bias.assign(bias)
    expected = trained.evaluate_loss()
    others = redundant_filters(trained)
    settings = changed(limits=Limits(decisions=len(others)), last_session_steps=0, **NO_LAYERS)
    records = run(trained, settings)
    assert Filter(1, 2) in {r.filters[0] for r in records}
    for record in records:
        assert (record.alteration, record.accepted, len(record.filters)) == (MERGE, True, 1)
        assert record.session.steps == 0
        assert record.session.losses == record.session.scores == ()
        assert record.score == pytest.approx(expected, rel=1e-5)
    assert trained.network.filters_kept == records[-1].filters_kept
    assert sum(records[-1].filters_kept) == 7 - len(records)


def redundant_filters(trainer: Trainer) -> list[Filter]:
    """Those that are zero at every pixel of the training images, up to the last one of each layer."""
    x = trainer.train.images / np.float32(255)
    found = []
    for layer in trainer.network.layers:
        x = np.array(trainer.network.block(layer).convolution(x))
        found += [Filter(layer, i) for i in range(x.shape[-1]) if not x[..., i].any()]
    return found


def test_a_duplicate_is_merged_into_its_twin(trained):
    convolution = trained.network.block(0).convolution
    kernel, bias = (np.array(w) for w in convolution.get_weights())
    kernel[..., 1], bias[1] = np.abs(kernel[..., 0]) * 0.5, np.abs(bias[0]) * 0.5 + 0.1
    kernel[..., 0], bias[0] = 2 * kernel[..., 1], 2 * bias[1]
    convolution.set_weights([kernel, bias])
    images = trained.validation.images / np.float32(255)
    expected = np.array(trained.network.model(images))
    first, *_ = run(trained, changed(**FIRST_ONLY, **NO_LAYERS))
    assert (first.alteration, first.filters, first.accepted) == (MERGE, (Filter(0, 1),), True)
    np.testing.assert_allclose(trained.network.model(images), expected, atol=1e-5)


def test_merging_is_looked_for_again_only_after_something_was_kept(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(redundancy, "find", lambda *arguments: asked.append(arguments))
    records = run(trained, changed(**MIXED, **NO_LAYERS))
    assert any(r.accepted for r in records) and not all(r.accepted for r in records)
    assert len(asked) == 1 + sum(r.accepted for r in records[:-1])


# -- repeatable ----------------------------------------------------------------------------------


def test_the_same_seed_twice_decides_alike(start):
    settings = changed(tolerance=0.5, stop_hopeless=True, near=0.6, max_cycles=2)
    found, states = [], []
    for _ in range(2):
        made = decisions(start(), settings, select="random", seed=7)
        found.append(without_seconds([decision.record for decision in made]))
        states.append(everything(made[-1].trainer))
    assert found[0] == found[1] and len(found[0]) > 3
    assert_equal(*states)


@pytest.mark.parametrize("tolerance", [0.05, 1e9], ids=["some fail", "layers go"])
def test_an_interrupted_minimization_ends_like_an_uninterrupted_one(start, tolerance, tmp_path):
    """Only one round, of two trials, before each interruption; each time from the initial network and a file.

    One trial after another is interrupted below, and in tests/pipeline/test_resume.py.
    """
    settings = changed(
        tolerance=tolerance,
        speculative=2,
        removal=plain_removal(group="adaptive", steps=6),
        layers=LayerRemoval(tries=1, steps=6),
        stop_hopeless=True,
        last_session_steps=6,
        limits=Limits(decisions=5),
    )
    whole = start()
    initial = whole.evaluator(whole.validation)
    expected = decisions(whole, settings, select="random", seed=3)
    state = everything(expected[-1].trainer)
    kept = [d.record.number for d in expected if d.record.alteration == REMOVE_LAYER and d.record.accepted]
    assert bool(kept) == (tolerance == 1e9)

    trainer, path = start(), tmp_path / "state.npz"
    first, select = trainer, bind("random", {})
    history: list[DecisionRecord] = []
    while not (history and history[-1].alteration == TRAIN):
        steps = minimize(trainer, select, settings, seed=3, initial=initial, history=history)
        for decision in steps:
            history.append(decision.record)
            if decision.settled:
                break
        steps.close()
        resume.save(tmp_path, decision.trainer, history)
        done = resume.load(path)
        assert done.records == tuple(history)
        trainer = resume.restore(done, first, path)
        assert_equal(everything(trainer), everything(decision.trainer))
    assert without_seconds(history) == without_seconds([d.record for d in expected])
    assert_equal(everything(trainer), state)
    assert not list(minimize(trainer, select, settings, seed=3, initial=initial, history=history))


def test_what_is_restored_is_the_initial_trainer_if_no_layer_was_removed(trained):
    done = resume.Done(False, (), Checkpoint.take(trained))
    trained.network.disable(Filter(0, 0))
    assert resume.restore(done, trained, Path("state.npz")) is trained
    assert trained.network.filters_kept == (3, 4)


# -- several trials at once ----------------------------------------------------------------------


def rounds(found: list[Decision]) -> list[list[Decision]]:
    whole: list[list[Decision]] = [[]]
    for decision in found:
        whole[-1].append(decision)
        if decision.settled:
            whole.append([])
    return whole[:-1]


def test_of_trials_at_once_the_best_acceptable_one_is_kept(start, nothing_is_merged):
    settings = changed(
        tolerance=0.5,
        speculative=3,
        removal=plain_removal(group=1, steps=6),
        last_session_steps=0,
        **NO_LAYERS,
    )
    found = decisions(start(), settings, select="random")
    together = rounds(found)
    assert len(together[0]) == 3
    assert [d.record.number for d in found] == list(range(1, len(found) + 1))
    assert any(last.record.accepted for *_, last in together)
    assert len({d.trainer for d in found}) == 1
    left = 7
    for *others, last in together:
        records = [d.record for d in (*others, last)]
        assert len({r.started_from for r in records}) == 1
        assert len({r.filters[0] for r in records}) == len(records)
        assert not any(r.accepted for r in records[:-1])
        assert {sum(r.filters_kept) for r in records[:-1]} <= {left}
        for record in records[:-1]:
            if "but another trial of the round was better" in record.reason:
                assert last.record.accepted and record.score >= last.record.score
        left -= last.record.accepted
        assert sum(last.record.filters_kept) == left
    again = decisions(start(), settings, select="random")
    assert without_seconds([d.record for d in again]) == without_seconds([d.record for d in found])
    assert_equal(everything(again[-1].trainer), everything(found[-1].trainer))


def test_a_trial_beside_others_goes_as_it_would_alone(start, nothing_is_merged):
    """The first of a round draws what it draws by itself, and the others change nothing for it."""
    settings = changed(removal=plain_removal(group=1, steps=6), limits=Limits(decisions=3), **NO_LAYERS)
    (alone, *_) = decisions(start(), settings, initial=UNREACHABLE)
    at_once = settings.model_copy(update={"speculative": 3})
    trainer = start()
    (beside, *others) = decisions(trainer, at_once, initial=UNREACHABLE)[:3]
    assert without_seconds([beside.record]) == without_seconds([alone.record])
    assert_equal(everything_in(beside.trained), everything_in(alone.trained))
    assert len({d.record.filters for d in (beside, *others)}) == 3
    assert [d.settled for d in (beside, *others)] == [False, False, True]


def everything_in(snapshot: Checkpoint) -> list[np.ndarray]:
    return [*snapshot.network.weights, *snapshot.network.active, *snapshot.optimizer]


def test_trials_at_once_keep_to_the_limits(start, nothing_is_merged):
    settings = changed(
        speculative=3,
        removal=plain_removal(group=1, steps=6),
        limits=Limits(decisions=4, steps=20),
        last_session_steps=0,
        **NO_LAYERS,
    )
    found = rounds(decisions(start(), settings, initial=UNREACHABLE))
    assert [len(together) for together in found] == [3]  # 18 of 20 steps


# -- when a trial ends and what it is held against -----------------------------------------------


def test_hopeless_trials_end_early(trained, nothing_is_merged):
    """By the curves of earlier sessions, none of which fell; the last session is never stopped."""
    flat = [[0.5, 0.5]] * 4
    limits = Limits(decisions=1)
    for stop, curves, steps in ((True, flat, 8), (False, flat, 16), (True, flat[:3], 16)):
        settings = changed(stop_hopeless=stop, limits=limits)
        first, last = run(trained, settings, initial=UNREACHABLE, curves=curves)
        assert first.session.steps == steps
        assert first.session.ended == ("hopeless" if steps == 8 else "completed")
        assert ("stopped early" in first.reason) == (steps == 8)
        assert not first.accepted
        assert last.session.steps == 10
    settings = changed(stop_hopeless=True, limits=limits, tolerance=0.1)
    (first, _) = run(trained, settings, initial=BOUNDLESS, curves=flat)
    assert first.session.ended == "sufficient" and first.accepted


def test_the_session_after_the_removal_of_a_layer_ends_when_it_suffices(trained, nothing_is_merged):
    """And only then: it is long as it is, and gets no other cycle, however close it comes."""
    for initial, ended, steps in ((BOUNDLESS, "sufficient", 8), (UNREACHABLE, "completed", 16)):
        (record,) = run(trained, changed(near=1e99, max_cycles=3, **FIRST_ONLY), initial=initial)
        assert (record.alteration, record.session.ended) == (REMOVE_LAYER, ended)
        assert record.session.steps == steps
        assert record.accepted == (ended == "sufficient")
        assert set(record.metrics) >= {"mae", "mse", "uiqi"}
        assert record.metrics["mae"] == pytest.approx(record.session.scores[-1][1], rel=1e-6)


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
    judge = Judge(np.ones((2, 2)), 0.1, threshold, 0.95)
    assert words in judge.reason(ended, verdict)


def test_what_a_trial_is_compared_with():
    def kept(score: float, accepted: bool) -> DecisionRecord:
        return dataclasses.replace(
            a_record(1, accepted=accepted), photograph_sums=((score, 1.0), (score, 1.0))
        )

    initial = np.array([[2.0, 1.0], [2.0, 1.0]])
    records = [kept(1.0, True), kept(0.5, False), kept(1.5, True)]
    for name, score in (("initial", 2.0), ("previous", 1.5), ("best", 1.0)):
        np.testing.assert_array_equal(reference_of(name, initial, records), [[score, 1.0]] * 2)
        np.testing.assert_array_equal(reference_of(name, initial, []), initial)


def test_a_trial_that_comes_close_trains_on(trained, nothing_is_merged):
    initial = trained.evaluator(trained.validation)
    state = Checkpoint.take(trained)
    unreachable = Evaluation({"mae": initial.sums["mae"] * [0.01, 1.0]}, 0.0, 1.0)
    for near, cycles in ((0.0, 1), (1e9, 3)):
        state.restore(trained)
        settings = changed(tolerance=0.0, near=near, max_cycles=3, **FIRST_ONLY, **NO_LAYERS)
        (first,) = run(trained, settings, initial=unreachable)
        assert first.session.steps == cycles * 12
        assert [step for step, _ in first.session.scores] == list(range(6, cycles * 12 + 1, 6))


def test_a_trial_that_comes_close_trains_on_within_the_limit_on_steps(trained, nothing_is_merged):
    settings = changed(near=1e99, max_cycles=3, limits=Limits(steps=35), last_session_steps=0, **NO_LAYERS)
    (first,) = run(trained, settings, initial=UNREACHABLE)
    assert first.session.steps == 24


def test_layers_have_a_learning_rate_of_their_own(trained, nothing_is_merged):
    """With next to none, a session changes next to nothing; filters' sessions still do."""
    layers = LayerRemoval(tries=1, steps=4, learning_rate=1e-12)
    settings = changed(layers=layers, limits=Limits(decisions=2), last_session_steps=0)
    of_a_layer, of_a_filter = run(trained, settings, initial=UNREACHABLE)
    assert of_a_layer.score == pytest.approx(of_a_layer.score_before_training, rel=1e-6)
    assert of_a_filter.score != pytest.approx(of_a_filter.score_before_training, rel=1e-4)


def test_the_last_session_is_kept_only_if_it_is_no_worse(trained, nothing_is_merged):
    """Than the network that it started from, whatever the tolerance; it is one cycle."""
    settings = changed(limits=Limits(macs_per_pixel=1e9), tolerance=1e9, near=1e9, max_cycles=3)
    state, initial = Checkpoint.take(trained), trained.evaluator(trained.validation)
    before = everything(trained)
    for factor, accepted in ((1e6, True), (1e-6, False)):
        state.restore(trained)
        other = Evaluation({"mae": initial.sums["mae"] * [factor, 1.0]}, 0.0, 1.0)
        (last,) = run(trained, settings, initial=other)
        assert (last.alteration, last.filters, last.session.steps) == (TRAIN, (), 10)
        assert last.accepted == accepted
        assert last.limit == pytest.approx(initial.score("mae") * factor)
    assert_equal(everything(trained), before)


@pytest.mark.parametrize("layers", [0, 1])
def test_a_trial_that_is_dead_is_stepped_back_from(trained, nothing_is_merged, layers):
    """Under a bias far below zero the output is zero everywhere, and stays so."""
    trained.network.model.layers[-1].bias.assign([-100.0])
    before = everything(trained)
    settings = changed(layers=LayerRemoval(tries=layers, steps=4), tolerance=1e9, **FIRST_ONLY)
    (record,) = run(trained, settings, initial=BOUNDLESS)
    assert (record.alteration == REMOVE_LAYER) == bool(layers)
    assert (record.session.ended, record.accepted) == ("dead", False)
    assert "dead" in record.reason
    assert_equal(everything(trained), before)


def test_non_inferiority_refuses_what_the_threshold_accepts(trained, nothing_is_merged):
    """A tolerance just above the mean loss: within on average, not with confidence."""
    state, initial = Checkpoint.take(trained), trained.evaluator(trained.validation)
    short = {**FIRST_ONLY, **NO_LAYERS}
    (first,) = run(trained, changed(tolerance=100.0, **short), initial=initial)
    verdicts = []
    for rule in ("threshold", "non_inferiority"):
        state.restore(trained)
        settings = changed(tolerance=first.relative_loss + 1e-9, acceptance=Acceptance(rule=rule), **short)
        verdicts += run(trained, settings, initial=initial)
    assert [v.accepted for v in verdicts] == [True, False]
    assert verdicts[0].relative_loss == verdicts[1].relative_loss < verdicts[1].bound


# -- in a compact network ------------------------------------------------------------------------


SHORT = Minimization(
    removal=plain_removal(group="adaptive", steps=6),
    layers=LayerRemoval(tries=1, steps=6),
    last_session_steps=6,
    tolerance=1e6,
    acceptance=Acceptance(rule="threshold"),
    limits=Limits(decisions=8, steps=None),
)


@pytest.fixture
def always(monkeypatch):
    """Filters are cut out as soon as there are any."""
    monkeypatch.setattr(
        loop,
        "pays",
        lambda trainer, steps: (
            filters_per_layer(trainer.network.model)
            != tuple(kept for kept in trainer.network.filters_kept if kept)
        ),
    )


def new_start(train_split, validation_split) -> Trainer:
    trainer = new_trainer(train_split, validation_split)
    trainer.session(Plan(20, 1), np.random.default_rng(0))
    return trainer


@pytest.mark.parametrize("tries", [0, 1], ids=["filters", "layers, too"])
def test_a_search_goes_on_in_the_smaller_network(train_split, validation_split, always, tries):
    """With two trials at once; one after another below."""
    chosen = SHORT.model_copy(update={"layers": LayerRemoval(tries=tries, steps=6), "speculative": 2})
    trainer = new_start(train_split, validation_split)
    initial = trainer.evaluator(trainer.validation)
    widths, removed = [], []
    for record, _, kept, settled, _ in minimize(trainer, bind("random", {}), chosen, seed=3, initial=initial):
        removed += record.filters if record.accepted else []
        if settled:
            assert kept.network.filters_kept == record.filters_kept
            assert (record.parameters, record.macs_per_pixel) == kept.network.size()
            widths.append(sum(filters_per_layer(kept.network.model)))
            assert widths[-1] == sum(record.filters_kept)  # cut out at once
    assert widths[-1] < 7 and len(set(widths)) > 2
    assert len(removed) == len(set(removed)) == 7 - widths[-1]
    end = kept.network
    assert removed_filters(end).sum() == len(removed)
    for layer, index in removed:
        assert not end.active[layer][index]


def test_interrupted_it_goes_on_in_the_smaller_network(train_split, validation_split, always, tmp_path: Path):
    first = new_start(train_split, validation_split)
    initial, start = first.evaluator(first.validation), Checkpoint.take(first)
    select = bind("random", {})
    whole = list(minimize(first, select, SHORT, seed=3, initial=initial))
    start.restore(first)
    trainer, history = first, list[DecisionRecord]()
    while not (history and history[-1].alteration == TRAIN):
        steps = minimize(trainer, select, SHORT, seed=3, initial=initial, history=history)
        decision = next(steps)
        steps.close()
        history.append(decision.record)
        resume.save(tmp_path, decision.trainer, history)
        start.restore(first)
        trainer = resume.restore(resume.load(tmp_path / "state.npz"), first, tmp_path)
    for found, expected in zip(history, whole, strict=True):
        assert (found.filters, found.score) == (expected.record.filters, expected.record.score)
    assert_equal(trainer.network.state().weights, whole[-1].trainer.network.state().weights)


# -- trials without a session, a target, and what lies below the tolerance ------------------------


def test_what_is_within_the_tolerance_already_needs_no_session(trained, nothing_is_merged):
    """Filter 2 of layer 0 is read by nobody: without it, nothing changes."""
    reader = trained.network.block(1).convolution
    kernel = reader.kernel.numpy()
    kernel[:, :, 2] = 0.0
    reader.kernel.assign(kernel)
    before = trained.network.model.get_weights()
    needed = changed(removal=Removal(group=1, steps=12), **FIRST_ONLY, **NO_LAYERS)
    (record,) = run(trained, needed, select=lambda s: [float(c == Filter(0, 2)) for c in s.candidates])
    assert (record.filters, record.accepted, record.session.steps) == ((Filter(0, 2),), True, 0)
    assert record.score == pytest.approx(record.score_before_training) and record.relative_loss == 0
    assert set(record.metrics) >= {"mae", "mse", "uiqi"}
    for old, new in zip(before, trained.network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_session_that_does_harm_is_undone_where_none_was_needed(trained, nothing_is_merged, monkeypatch):
    """It has drifted through half of the tolerance, so it is trained, by a rate that destroys it."""
    initial = trained.evaluator(trained.validation)
    settings = changed(removal=Removal(group=1, steps=12), learning_rate=50.0, tolerance=1e6, **FIRST_ONLY)
    settings = settings.model_copy(update=NO_LAYERS)
    monkeypatch.setattr(attempt, "DRIFT", -1.0)
    (record,) = run(trained, settings, initial=initial)
    assert record.accepted and record.session.steps > 0
    assert record.score == pytest.approx(record.score_before_training)
    assert trained.evaluate_loss() == pytest.approx(record.score)


@pytest.mark.parametrize("refit", [True, False])
def test_a_trial_starts_from_what_was_refitted(start, nothing_is_merged, monkeypatch, refit):
    def scale(network, before, images, rng, loss) -> bool:
        """In the place of a fit, which has tests of its own: the output doubles."""
        assert sum(network.filters_kept) < sum(map(sum, before.active))
        output = network.blocks[-1].convolution
        output.set_weights([2 * weight for weight in output.get_weights()])
        return True

    monkeypatch.setattr(attempt, "refit_if_better", scale)
    removal = Removal(group=1, steps=2, refit=refit, sessions="always")
    (record,) = run(start(), changed(removal=removal, **FIRST_ONLY, **NO_LAYERS), initial=UNREACHABLE)
    trainer = start()
    trainer.network.disable(*record.filters)
    output = trainer.network.blocks[-1].convolution
    output.set_weights([(1 + refit) * weight for weight in output.get_weights()])
    assert record.score_before_training == pytest.approx(trainer.evaluate_loss(), rel=1e-5)


def test_a_target_takes_the_place_of_the_tolerance(trained, nothing_is_merged):
    score = trained.evaluate_loss()
    within = changed(target=score * 1e3, tolerance=0.0, removal=Removal(group=1, steps=6), **NO_LAYERS)
    records = run(trained, within)
    assert records[-1].filters_kept == (1, 1)
    assert all(r.limit == score * 1e3 for r in records if r.filters)
    assert "reaches the target" in records[0].reason


def test_a_target_out_of_reach_ends_with_the_last_session_once_growth_is_over(trained, nothing_is_merged):
    growing = Growing(
        Growth(steps=4, tries=1), Scaling(max_steps=8), partial(GROWTH_STRATEGIES.resolve("uniform", ""))
    )
    settings = changed(target=1e-9, **NO_LAYERS)
    initial = trained.evaluator(trained.validation)
    found = list(minimize(trained, bind("random", {}), settings, seed=0, initial=initial, growing=growing))
    assert all(d.record.grows for d in found[:-1]) and found[-1].record.alteration == TRAIN
    assert reaches_target(settings, initial.sums["mae"]) is False
    assert reaches_target(SETTINGS, initial.sums["mae"]) is None


def test_the_frontier_goes_down_to_the_smallest_network_and_leaves_the_trainer_as_it_was(
    train_split, validation_split
):
    trainer = new_trainer(train_split, validation_split, build([2, 2], kernel=3, deviation=0.3, seed=(1,)))
    before = everything(trainer)
    settings = changed(removal=Removal(steps=60))
    points = list(frontier(trainer, settings, seed=0, steps=200))
    sizes = [size(point.model).macs_per_pixel for point in points]
    assert sizes == sorted(set(sizes), reverse=True) and len(sizes) > 1
    assert filters_per_layer(points[-1].model) == (1,)  # nothing is left that may go
    assert sum(point.steps for point in points) <= 200
    assert_equal(everything(trainer), before)
    again = list(frontier(trainer, settings, seed=0, steps=200))
    for one, other in zip(points, again, strict=True):
        for old, new in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_rejected_network_is_kept_for_the_curve_if_none_is_as_small_and_as_good(trained, nothing_is_merged):
    found = decisions(trained, changed(**FIRST_ONLY), initial=UNREACHABLE)
    assert found[0].rejected is not None and not found[0].record.accepted
    assert size(found[0].rejected).macs_per_pixel < found[0].record.macs_per_pixel
