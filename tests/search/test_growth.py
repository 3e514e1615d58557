"""Where and when a network grows, and that growth is accepted only if it pays."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from conftest import new_trainer
from networks import plain_removal
from selfscale.decisions import INSERT_LAYER, TRAIN, TRAIN_ON, WIDEN
from selfscale.errors import UserError
from selfscale.nn.fcn import build, calibrate, filters_per_layer, size
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.trainer import Plan
from selfscale.nn.widening import grown
from selfscale.search.growth import GROWTH_STRATEGIES, GrowthSubject
from selfscale.search.growth_trials import Growing, candidates, replayed
from selfscale.search.importance import STRATEGIES
from selfscale.search.loop import minimize
from selfscale.search_config import Growth as GrowthSettings
from selfscale.search_config import LayerRemoval, Limits, Minimization, Scaling

bind_growth = functools.partial(GROWTH_STRATEGIES.bind, where="growth")


def subject_of(trainer, train=lambda network, steps: 0.0, found=None) -> GrowthSubject:
    found = found or candidates(trainer.network)
    images = trainer.train.images
    networks = [grown(trainer.network, growth, images, np.random.default_rng(0)) for growth in found]
    costs = np.array(
        [
            size(network.model).macs_per_pixel - size(trainer.network.model).macs_per_pixel
            for network in networks
        ]
    )
    probe = Probe(trainer.network, trainer.train, trainer.loss)
    return GrowthSubject(trainer.network, found, networks, costs, np.random.default_rng(0), probe, train)


BOTH, MORE = (WIDEN, {0: 3, 1: 4}), (INSERT_LAYER, {2: 4})


@pytest.mark.parametrize(
    ("factor", "first"), [(1, [BOTH, MORE]), (3, [(INSERT_LAYER, {2: 12}), (WIDEN, {0: 9, 1: 12})])]
)
def test_uniform_keeps_width_and_depth_in_proportion(trainer, factor, first):
    """3 and 4 filters are below four times two layers, 9 and 12 are not."""
    if factor > 1:
        trainer = trainer.of(MaskedNetwork(build([9, 12], kernel=3, deviation=0.3, seed=(1,))))
    subject = subject_of(trainer)
    order = [subject.candidates[i] for i in np.argsort(-GROWTH_STRATEGIES.resolve("uniform", "")(subject))]
    assert [(growth.alteration, growth.layers) for growth in order] == [
        *first,
        (WIDEN, {0: 3 * factor}),
        (WIDEN, {1: 4 * factor}),
        (INSERT_LAYER, {1: 3 * factor}),
    ]


def test_widest_gain_is_the_fall_of_the_loss_for_its_cost(trainer):
    losses = iter([0.03, 0.05, 0.01, 0.02, 0.05])
    asked = []
    subject = subject_of(trainer, lambda network, steps: (asked.append(steps), next(losses))[1])
    scores = bind_growth("widest_gain", {"steps": 7})(subject)
    before = subject.probe.loss_of(trainer.network)
    np.testing.assert_allclose(scores, (before - np.array([0.03, 0.05, 0.01, 0.02, 0.05])) / subject.costs)
    assert asked == [7] * 5


def test_gradient_is_that_of_the_new_weights_alone(trainer):
    """Against the gradient by hand: of the widened layer's readers, which are all that has any."""
    (growth,) = [g for g in candidates(trainer.network) if g.alteration == WIDEN and g.layers == {1: 4}]
    subject = subject_of(trainer, found=[growth])
    larger = subject.grown[0]
    import tensorflow as tf

    images = tf.cast(subject.probe.images, tf.float32) / 255
    kernel = larger.blocks[-1].convolution.kernel.value
    parts = []
    for start in (0,):  # twelve images: one batch of eight
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            error = larger.model(images[start : start + 8]) - tf.cast(subject.probe.targets[:8], tf.float32)
            loss = tf.reduce_mean(tf.abs(error))
        parts.append(tape.gradient(loss, kernel).numpy())
    new = np.mean(parts, axis=0)[:, :, 4:]
    expected = np.square(new.astype(np.float64)).sum() / subject.costs[0]
    np.testing.assert_allclose(bind_growth("gradient", {})(subject), [expected], rtol=1e-3)


def test_an_unknown_growth_strategy_or_argument_is_an_error():
    with pytest.raises(UserError, match=r"growth\.select: 'gradiant' is unknown; did you mean 'gradient'\?"):
        bind_growth("gradiant", {})
    with pytest.raises(UserError, match=r"growth\.arguments: 'step' is unknown"):
        bind_growth("widest_gain", {"step": 3})


# -- in the loop ---------------------------------------------------------------------------------


def settings(**limits) -> Minimization:
    return Minimization(
        removal=plain_removal(steps=20),
        layers=LayerRemoval(tries=0),
        last_session_steps=20,
        limits=Limits(**{"steps": None, "decisions": 2} | limits),
    )


def growing(then_shrinks: bool = True, min_gain: float = 0.0, select: str = "uniform", **limits) -> Growing:
    chosen = GrowthSettings(steps=120, min_gain=min_gain, tries=2)
    return Growing(chosen, Scaling(**{"max_steps": 700} | limits), bind_growth(select, {}), then_shrinks)


def run(trainer, grow: Growing, history=(), seed: int = 0):
    initial = trainer.evaluator(trainer.validation)
    decisions = minimize(
        trainer,
        STRATEGIES.resolve("random", ""),
        settings(),
        seed=seed,
        initial=initial,
        history=history,
        growing=grow,
    )
    return list(decisions)


@pytest.fixture
def single(train_split, validation_split):
    model = build([1], kernel=3, deviation=0.3, seed=(3,))
    calibrate(model, train_split.images / np.float32(255), float(train_split.targets.mean()), center=False)
    trainer = new_trainer(train_split, validation_split, model)
    trainer.session(Plan(200, 1), np.random.default_rng(0))
    return trainer


def test_a_single_filter_grows_then_shrinks_then_trains_once_more(single):
    start = size(single.network.model)
    decisions = run(single, growing())
    records = [decision.record for decision in decisions]
    names = [record.alteration for record in records]
    assert names[0] == TRAIN_ON
    assert names[-1] == TRAIN
    growth = [record.grows for record in records]
    assert growth == sorted(growth, reverse=True), "growth comes before all removals"
    kept = [record for record in records if record.accepted and record.alteration in (WIDEN, INSERT_LAYER)]
    assert kept, "nothing was gained"
    assert records[-1].macs_per_pixel > start.macs_per_pixel
    assert decisions[-1].trainer.evaluate_loss() < single.evaluate_loss()
    for record in kept:
        # More than the last session without growth gained, and beyond doubt.
        before = [r for r in records[: record.number - 1] if r.alteration == TRAIN_ON][-1]
        assert record.bound <= -max(0.0, -before.relative_loss)
    removals = [record for record in records if not record.grows and record.filters]
    last_growth = [record for record in records if record.grows and record.accepted][-1]
    for record in removals:
        assert record.limit == pytest.approx(last_growth.score * 1.1), "of the network that was grown"


def test_growth_alone_ends_with_the_last_session(single):
    names = [decision.record.alteration for decision in run(single, growing(then_shrinks=False))]
    assert set(names[:-1]) <= {TRAIN_ON, WIDEN, INSERT_LAYER}
    assert names[-1] == TRAIN


def test_growth_that_is_not_worth_its_cost_is_stepped_back(single):
    decisions = run(single, growing(min_gain=100.0, then_shrinks=False))
    tried = [decision.record for decision in decisions if decision.record.filters]
    assert len(tried) == 2, "as many as `tries`"
    assert not any(record.accepted for record in tried)
    assert filters_per_layer(decisions[-1].trainer.network.model) == (1,)
    assert {record.filters for record in tried} == {candidates(single.network)[i].filters for i in (0, 1)}


def test_growth_keeps_within_its_limits(single):
    start = size(single.network.model)
    nowhere = growing(max_macs_per_pixel=start.macs_per_pixel + 1)
    assert {d.record.alteration for d in run(single, nowhere)} == {TRAIN_ON, TRAIN}
    steps = growing(max_steps=200)  # one session of 120
    assert [d.record.alteration for d in run(single, steps)] == [TRAIN_ON, TRAIN]
    with pytest.raises(UserError, match="nothing may be removed"):
        list(minimize(single, STRATEGIES.resolve("random", ""), settings(), seed=0,
                      initial=single.evaluator(single.validation)))  # fmt: skip


def test_an_interrupted_growth_goes_on_as_if_it_had_not_stopped(single, train_split, validation_split):
    state = single.network.state()
    whole = run(single, growing())
    records = [decision.record for decision in whole]
    middle = (
        next(n for n, r in enumerate(records) if r.accepted and r.alteration in (WIDEN, INSERT_LAYER)) + 1
    )
    fresh = new_trainer(train_split, validation_split, build([1], kernel=3, deviation=0.3, seed=(9,)))
    fresh.network.restore(state)
    initial = fresh.evaluator(fresh.validation)
    begun = minimize(
        fresh, STRATEGIES.resolve("random", ""), settings(), seed=0, initial=initial, growing=growing()
    )
    kept = [next(begun) for _ in range(middle)][-1]
    saved = kept.trainer.network.state()
    replaced = replayed(fresh.network, records[:middle])
    again = fresh.of(replaced)
    again.network.restore(saved)
    rest = minimize(
        again, STRATEGIES.resolve("random", ""), settings(), seed=0, initial=initial,
        history=records[:middle], growing=growing(),
    )  # fmt: skip
    without_times = lambda r: replace(r, session=replace(r.session, seconds=0.0))  # noqa: E731
    for found, expected in zip(rest, records[middle:], strict=True):
        assert without_times(found.record) == without_times(expected)
