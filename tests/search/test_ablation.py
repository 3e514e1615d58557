from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from conftest import new_trainer
from selfscale.decisions import Filter
from selfscale.nn.checkpoint import Checkpoint
from selfscale.nn.fcn import build, calibrate
from selfscale.nn.metrics import Evaluator
from selfscale.nn.trainer import Plan, Trainer
from selfscale.progress import Moment, Progress
from selfscale.search.ablation import (
    BASELINE,
    RELEARNS,
    TESTS,
    AblationRecord,
    ScoreChange,
    ablate,
    distance,
    paired_difference,
    possible,
    successor,
)

STEPS = 12


def everything(trainer: Trainer) -> list[np.ndarray]:
    state = trainer.network.state()
    return [
        *state.weights,
        *state.active,
        *state.trainable,
        *(v.numpy() for v in trainer.optimizer.variables),
    ]


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def without_seconds(record: AblationRecord) -> AblationRecord:
    return dataclasses.replace(record, session=dataclasses.replace(record.session, seconds=0.0))


def moved(record: AblationRecord) -> dict[Filter, float]:
    return {movement.filter: movement.distance for movement in record.movements}


@pytest.fixture(scope="module")
def trained(train_split, validation_split) -> Trainer:
    """A network of 2 and 3 filters with momentum left in Adam; its filter 1.2 never fires."""
    model = build([2, 3], kernel=3, deviation=0.3, seed=(1,))
    calibrate(model, train_split.images / np.float32(255), float(train_split.targets.mean()))
    kernel, bias = model.layers[2].get_weights()
    kernel[..., 2], bias[2] = 0.0, -1.0
    model.layers[2].set_weights([kernel, bias])
    trainer = new_trainer(train_split, validation_split, model)
    trainer.session(Plan(STEPS, 1), np.random.default_rng(0))
    return trainer


@pytest.fixture(scope="module")
def records(trained) -> list[AblationRecord]:
    """The records of one series, in which the trainer is as it was at every yield."""
    before, found = everything(trained), []
    for record in ablate(trained, STEPS, seed=3):
        assert_equal(everything(trained), before)
        found.append(record)
    return found


def of(records: list[AblationRecord], test: str) -> dict[Filter | None, AblationRecord]:
    return {record.filter: record for record in records if record.test == test}


def test_the_baseline_comes_first_and_then_every_test_of_every_hidden_filter(trained, records):
    filters = [Filter(0, 0), Filter(0, 1), Filter(1, 0), Filter(1, 1), Filter(1, 2)]
    expected = [(BASELINE, None), *((test, filter) for filter in filters for test in TESTS)]
    assert [(record.test, record.filter) for record in records] == expected
    assert {record.session.steps for record in records} == {STEPS}


def test_the_scores_before_training_are_those_of_the_altered_network(trained, records):
    untouched = trained.evaluate_loss()
    assert {record.reference for record in records} == {untouched}
    assert records[0].score_before_training == untouched
    model = build([2, 3], kernel=3)
    for filter, record in of(records, "disabled").items():
        # A filter that is zero by its weights is what a disabled one has to equal.
        model.set_weights(trained.network.model.get_weights())
        kernel, bias = model.layers[filter.layer + 1].get_weights()
        kernel[..., filter.index], bias[filter.index] = 0.0, 0.0
        model.layers[filter.layer + 1].set_weights([kernel, bias])
        expected = Evaluator(model, discrete=False)(trained.validation).score("mae")
        assert record.score_before_training == pytest.approx(expected, rel=1e-5)
        assert (
            of(records, "disabled_and_frozen")[filter].score_before_training == record.score_before_training
        )


def test_the_baseline_is_the_same_session_with_nothing_altered(records):
    baseline = records[0]
    assert baseline.difference.value == pytest.approx(baseline.score / baseline.reference - 1.0)
    assert baseline.difference.value < 0  # the network was trained too shortly for more not to help
    assert baseline.against_baseline is None
    assert baseline.successor is None
    # What never fires can be missed: on the same crops, without it, all goes exactly the same way.
    idle = of(records, "disabled")[Filter(1, 2)]
    assert idle.session.losses == baseline.session.losses
    assert idle.score == baseline.score
    assert idle.against_baseline == ScoreChange(0.0, 0.0, 0.0)


def test_what_moves_in_each_test(records):
    for filter, record in of(records, "disabled").items():
        distances = moved(record)
        assert distances[filter] == 0
        assert any(distances[other] > 0 for other in distances if other.layer == filter.layer)
    for filter, record in of(records, "disabled_and_frozen").items():
        distances = moved(record)
        assert not any(distances[other] for other in distances if other.layer == filter.layer)
        assert distances[Filter(2, 0)] > 0
    for filter, record in of(records, "reinitialized").items():
        assert {other for other, far in moved(record).items() if far} == {filter}
        assert record.relearned is not None
        assert 0 <= record.relearned <= 1
    assert {record.relearned for record in records if record.test != RELEARNS} == {None}


def test_the_intervals_contain_the_differences(records):
    for record in records:
        for difference in filter(None, (record.difference, record.against_baseline)):
            assert difference.low <= difference.value <= difference.high
        assert record.difference.value == pytest.approx(record.score / record.reference - 1.0)


def test_the_interval_is_that_of_a_paired_bootstrap():
    rng = np.random.default_rng(0)
    hard = rng.random(300) + 0.5
    one, other = (np.stack([hard * rng.normal(m, 0.1, 300), np.ones(300)], axis=1) for m in (1.2, 1.0))
    found = paired_difference(one, other)
    expected = stats.bootstrap(
        (one[:, 0], other[:, 0]),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis) - 1.0,
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.value == pytest.approx(one[:, 0].mean() / other[:, 0].mean() - 1.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    # Pairs: what makes a photograph hard for both does not widen it.
    assert found.high - found.low < 0.05 < 2 * 1.96 * hard.std() / np.sqrt(300)


def test_the_same_seed_gives_the_same_records_and_another_one_does_not(trained, records):
    series = ablate(trained, STEPS, seed=3)
    again = [next(series) for _ in range(4)]
    assert list(map(without_seconds, again)) == list(map(without_seconds, records[:4]))
    other = ablate(trained, STEPS, seed=4)
    assert next(other).session.losses != records[0].session.losses


def test_what_adam_had_gathered_before_does_not_matter(trained, records):
    before = Checkpoint.take(trained)
    assert any(array.any() for array in before.optimizer)
    trained.reset()
    assert without_seconds(next(ablate(trained, STEPS, seed=3))) == without_seconds(records[0])
    before.restore(trained)


def test_a_session_that_is_interrupted_leaves_the_trainer_as_it_was(trained):
    before = everything(trained)

    def interrupt(moment: Moment) -> None:
        if moment.score is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(ablate(trained, STEPS, seed=3, progress=Progress(interrupt)))
    assert_equal(everything(trained), before)


def test_a_twin_takes_over(train_split, validation_split):
    model = build([3, 2], kernel=3, deviation=0.3, seed=(1,))
    kernel, bias = model.layers[1].get_weights()
    kernel[..., 2] = 2 * kernel[..., 0]
    model.layers[1].set_weights([kernel, bias])
    trainer = new_trainer(train_split, validation_split, model)
    found = {(r.filter, r.test): r for r in ablate(trainer, 4, seed=0)}
    twin = found[Filter(0, 0), "disabled_and_frozen"].successor
    assert twin.filter == Filter(0, 2)
    assert (twin.similarity, twin.before) == pytest.approx((1.0, 1.0))
    twin = found[Filter(0, 0), "disabled"].successor
    assert twin.filter == Filter(0, 2)
    assert 0.95 < twin.similarity < twin.before


def test_the_only_filter_of_a_layer_can_be_reinitialized_only(train_split, validation_split):
    model = build([1, 2], kernel=3, deviation=0.3, seed=(1,))
    trainer = new_trainer(train_split, validation_split, model)
    trainer.network.disable(Filter(1, 0))
    assert possible(trainer.network) == [(RELEARNS, Filter(0, 0)), (RELEARNS, Filter(1, 1))]
    _, record, _ = ablate(trainer, 4, seed=0)
    assert record.successor is None
    assert record.relearned is not None
    assert Filter(1, 0) not in moved(record)  # it was off before


def test_distances_and_successors_by_hand():
    assert distance(np.array([3.0, 8.0]), np.array([3.0, 4.0])) == pytest.approx(4 / 5)
    assert distance(np.array([3.0, 4.0]), np.zeros(2)) == pytest.approx(5.0)
    a, b, c, other = Filter(0, 0), Filter(0, 1), Filter(0, 2), Filter(1, 0)
    old = {a: np.array([1.0, 0.0]), b: np.array([1.0, 1.0]), c: np.array([0.0, 1.0]), other: np.ones(5)}
    new = old | {c: np.array([-4.0, 3.0])}
    found = successor(a, new, old)
    assert (found.filter, found.similarity, found.before) == (c, pytest.approx(0.8), 0.0)
