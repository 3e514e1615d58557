"""In which order what is tried, without any training: the verdicts are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from conftest import sobel_split
from selfscale.decisions import MERGE, REMOVE_LAYER, TRAIN, WIDEN, DecisionRecord, Filter, layers_of
from selfscale.errors import UserError
from selfscale.nn import redundancy
from selfscale.nn.compaction import compacted
from selfscale.nn.fcn import build
from selfscale.nn.layer_removal import with_layers, without_layer
from selfscale.nn.masking import MaskedNetwork
from selfscale.nn.probe import Probe
from selfscale.nn.redundancy import Redundant
from selfscale.search import proposals
from selfscale.search.importance import STRATEGIES, Subject
from selfscale.search.proposals import group_size, loss_without, next_trials
from selfscale.search.trial import Round, Trial
from selfscale.search_config import LayerRemoval, Limits, Minimization, Removal
from stores import record

# Of a probe, only the images that redundant filters are looked for on are needed where losses are made up.
PROBE = SimpleNamespace(split=SimpleNamespace(images=None))
Verdict = Callable[[Trial], bool]


def new_settings(group="adaptive", alterations=("disable",), tries=2, **limits) -> Minimization:
    return Minimization(
        removal=Removal(alterations=list(alterations), group=group, steps=20, max_failures=32),
        layers=LayerRemoval(tries=tries, steps=70, learning_rate=0.02),
        last_session_steps=50,
        limits=Limits(**{"steps": None} | limits),
    )


@pytest.fixture(scope="module", autouse=True)
def made_up() -> Iterator[None]:
    """No filter is redundant, and the loss is least without the last layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redundancy, "find", lambda *_: None)
        patch.setattr(proposals, "loss_without", lambda network, layer, probe, rng: 10.0 - layer)
        yield


def in_order(subject: Subject) -> np.ndarray:
    """The first candidate is the best one."""
    return -np.arange(len(subject.candidates), dtype=float)


def by_chance(subject: Subject) -> np.ndarray:
    return subject.rng.random(len(subject.candidates))


def no_trial(trial: Trial) -> bool:
    return False


def every_trial(trial: Trial) -> bool:
    return True


def decided(trial: Trial, number: int, accepted: bool) -> DecisionRecord:
    return record(
        number,
        accepted=accepted,
        filters=trial.filters,
        alteration=trial.alteration,
        steps=trial.steps,
        seconds=3.0,
    )


class Course:
    """A minimization without sessions: `verdict` says of each trial whether it is kept."""

    def __init__(self, widths: Sequence[int], settings: Minimization, select=in_order, seed: int = 0) -> None:
        self.network = MaskedNetwork(build(widths, kernel=1))
        self.settings, self.select, self.seed = settings, select, seed
        self.records: list[DecisionRecord] = []

    def next(self) -> Trial:
        (trial,) = next_trials(
            Round(self.network, PROBE, self.select, self.settings, self.seed, tuple(self.records))
        )
        return trial

    def run(self, verdict: Verdict) -> Iterator[Trial]:
        """The trials up to the last session, without it; `network` is what each of them starts from."""
        while (trial := self.next()).alteration != TRAIN:
            accepted = verdict(trial)
            yield trial
            self.records.append(decided(trial, len(self.records) + 1, accepted))
            if accepted and trial.alteration == REMOVE_LAYER:
                left = [layer for layer in self.network.layers if layer not in layers_of(trial.filters)]
                self.network = with_layers(self.network, left)
            elif accepted and trial.removes:
                self.network.disable(*trial.filters)
        assert trial == Trial(TRAIN, (), self.settings.last_session_steps, learning_rate=0.003)


def trials(widths: Sequence[int], settings: Minimization, verdict: Verdict = no_trial) -> list[Trial]:
    return list(Course(widths, settings).run(verdict))


def removed_layers(found: Sequence[Trial]) -> list[tuple[int, int]]:
    """Those of single layers: what comes first, several at once, has tests of its own."""
    single = [t for t in found if t.alteration == REMOVE_LAYER and len(layers_of(t.filters)) == 1]
    return [(t.filters[0].layer, t.attempt) for t in single]


# -- the order -----------------------------------------------------------------------------------


def test_several_layers_then_filters_then_single_layers():
    found = trials([2, 3, 1], new_settings(tries=3))
    assert [(t.alteration, t.filters, t.attempt) for t in found] == [
        (REMOVE_LAYER, (Filter(1, 0), Filter(1, 1), Filter(1, 2), Filter(2, 0)), 0),
        (REMOVE_LAYER, (Filter(2, 0),), 0),
        *(("disable", (Filter(0, i),), 0) for i in range(2)),
        *(("disable", (Filter(1, i),), 0) for i in range(3)),
        (REMOVE_LAYER, (Filter(0, 0), Filter(0, 1)), 0),
        (REMOVE_LAYER, (Filter(1, 0), Filter(1, 1), Filter(1, 2)), 0),
        (REMOVE_LAYER, (Filter(0, 0), Filter(0, 1)), 1),
        (REMOVE_LAYER, (Filter(1, 0), Filter(1, 1), Filter(1, 2)), 1),
        (REMOVE_LAYER, (Filter(2, 0),), 1),
        (REMOVE_LAYER, (Filter(0, 0), Filter(0, 1)), 2),
        (REMOVE_LAYER, (Filter(1, 0), Filter(1, 1), Filter(1, 2)), 2),
        (REMOVE_LAYER, (Filter(2, 0),), 2),
    ]
    assert {(t.alteration, t.steps, t.learning_rate) for t in found} == {
        (REMOVE_LAYER, 70, 0.02),
        ("disable", 20, 0.003),
    }


def test_a_layer_that_was_removed_gives_the_others_another_chance():
    """Layers go at their second attempt only: then the others begin again at their first."""
    found = trials([2, 2, 2], new_settings(), lambda t: t.alteration == REMOVE_LAYER and t.attempt == 1)
    # Layer 2 stays: it is the only one then.
    assert removed_layers(found) == [(2, 0), (0, 0), (1, 0), (0, 1), (1, 0), (2, 0), (1, 1)]


LOSSES = [0.3, 0.1, 0.2, 0.1]


@pytest.fixture
def losses(monkeypatch):
    """What the loss is without each of four layers."""
    monkeypatch.setattr(proposals, "loss_without", lambda network, layer, *_: LOSSES[layer])


def test_first_all_layers_go_but_the_one_that_is_missed_most_then_fewer(losses):
    found = trials([1, 1, 1, 1], new_settings(tries=1))
    assert [layers_of(t.filters) for t in found] == [[1, 2, 3], [1, 3], [1], [0], [2], [3]]
    assert {t.alteration for t in found} == {REMOVE_LAYER}
    assert [t.selection_score for t in found[:3]] == [-0.2, -0.1, -0.1]
    assert removed_layers(found) == [(1, 0), (0, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize(("kept", "left"), [(0, [0]), (1, [0, 2]), (2, [0, 2, 3])])
def test_when_layers_went_the_filters_are_next(losses, kept, left):
    course = Course([2, 2, 2, 2], new_settings(tries=1))
    steps = course.run(lambda trial: len(course.records) == kept)
    for _ in range(kept + 1):
        assert next(steps).alteration == REMOVE_LAYER
    assert (next(steps).alteration, list(course.network.layers)) == ("disable", left)


def test_two_layers_are_no_special_case(losses):
    assert layers_of(trials([2, 2], new_settings(tries=1))[0].filters) == [1]


def test_a_layer_that_resizes_the_image_is_not_among_them(monkeypatch, losses):
    monkeypatch.setattr(proposals, "removable_layers", lambda network: [1, 2])
    found = trials([1, 1, 1, 1], new_settings(tries=1))
    assert [layers_of(t.filters) for t in found[:2]] == [[1, 2], [1]]


def test_the_loss_without_a_layer_is_that_of_the_network_without_it():
    split = sobel_split(8, seed=3)
    network = MaskedNetwork(build([2, 3], kernel=3, mean=0.05, deviation=0.2, seed=(5,)))
    rng = np.random.default_rng(0)
    smaller = without_layer(network, 1, split, 0, rng)
    output = np.array(smaller.model(split.images / np.float32(255)), dtype=float)
    expected = np.abs(output - split.targets).mean()
    found = loss_without(network, 1, Probe(network, split, "mae"), rng)
    assert found == pytest.approx(expected, rel=1e-3)
    assert network.layers == (0, 1)


def test_redundant_filters_go_after_a_layer_was_tried(monkeypatch):
    """And are looked for again once something was kept, not after a failure."""
    course = Course([2, 3], new_settings(tries=1, group=1))
    asked = []

    def find(network: MaskedNetwork, *_) -> Redundant | None:
        asked.append(network.filters_kept)
        return Redundant(Filter(1, 2)) if network.active[1][2] else None

    monkeypatch.setattr(redundancy, "find", find)
    found = list(course.run(lambda trial: trial.alteration != REMOVE_LAYER))
    assert [(t.alteration, t.filters[0], t.steps) for t in found[:3]] == [
        (REMOVE_LAYER, Filter(1, 0), 70),
        (MERGE, Filter(1, 2), 0),
        ("disable", Filter(0, 0), 20),
    ]
    assert found[1].spare == Redundant(Filter(1, 2))
    assert list(dict.fromkeys(asked)) == [(2, 3), (2, 2), (1, 2), (1, 1)]
    course = Course([2, 3], new_settings(tries=0, group=1))
    found = list(course.run(no_trial))
    assert [t.alteration for t in found] == [MERGE, *["disable"] * 5]
    course = Course([2, 3], new_settings(tries=0, group=1))
    course.records.append(record(1, accepted=False, alteration=WIDEN))  # failed growth is no reason not to
    assert course.next().alteration == MERGE


def test_without_tries_layers_stay():
    found = trials([2, 2], new_settings(tries=0), every_trial)
    assert {t.alteration for t in found} == {"disable"}
    assert len(found) == 2


def test_one_try_of_each_layer():
    assert removed_layers(trials([2, 2], new_settings(tries=1))) == [(1, 0), (0, 0)]


def test_everything_that_may_go_goes():
    course = Course([4, 4, 4], new_settings())
    found = list(course.run(every_trial))
    assert layers_of(found[0].filters) == [1, 2]
    assert course.network.filters_kept == (1, 0, 0)


def test_the_alterations_in_their_order():
    found = trials([2], new_settings(alterations=["disable_and_freeze", "reinitialize", "disable"]))
    assert [t.alteration for t in found] == ["disable_and_freeze"] * 2 + ["reinitialize"] * 2 + [
        "disable"
    ] * 2


def test_the_last_filter_of_a_layer_stands_for_the_layer():
    def verdict(trial: Trial) -> bool:
        return trial.alteration == "disable"

    def last_layer_first(subject: Subject) -> np.ndarray:
        return np.array([10.0 * filter.layer for filter in subject.candidates])

    course = Course([3, 2], new_settings(tries=1, group=1), last_layer_first)
    found = list(course.run(verdict))
    assert [(t.alteration, t.filters, t.attempt, t.selection_score) for t in found] == [
        (REMOVE_LAYER, (Filter(1, 0), Filter(1, 1)), 0, -9.0),
        ("disable", (Filter(1, 0),), 0, 10.0),
        # Another try, though the layer has had its one: it is another layer now.
        (REMOVE_LAYER, (Filter(1, 1),), 1, 10.0),
        ("disable", (Filter(0, 0),), 0, 0.0),
        (REMOVE_LAYER, (Filter(1, 1),), 2, 10.0),
        ("disable", (Filter(0, 1),), 0, 0.0),
        (REMOVE_LAYER, (Filter(1, 1),), 3, 10.0),
        (REMOVE_LAYER, (Filter(0, 2),), 0, 0.0),
    ]


def test_the_last_filter_is_no_candidate_where_the_layer_has_to_stay():
    asked: list[list[Filter]] = []

    def select(subject: Subject) -> np.ndarray:
        asked.append(list(subject.candidates))
        return in_order(subject)

    list(Course([1, 2], new_settings(tries=0), select).run(no_trial))
    assert asked == [[Filter(1, 0), Filter(1, 1)]] * 2


# -- groups --------------------------------------------------------------------------------------


def test_a_group_doubles_on_success_and_halves_on_failure():
    verdicts = iter([True, True, True, False, False, True, False, False, False, True, True])
    found = [
        len(t.filters)
        for _, t in zip(
            range(11), Course([64], new_settings(tries=0)).run(lambda t: next(verdicts)), strict=False
        )
    ]
    assert found == [1, 2, 4, 8, 4, 2, 4, 2, 1, 1, 2]


def test_a_wide_layer_needs_few_trials():
    course = Course([64], new_settings(tries=0))
    assert [len(t.filters) for t in course.run(every_trial)] == [1, 2, 4, 8, 16, 32]
    assert course.network.filters_kept == (1,)


def test_a_fixed_group_comes_back_after_a_success():
    verdicts = iter([True, False, False, False, True, True])
    course = Course([64], new_settings(tries=0, group=5))
    sizes = [len(t.filters) for _, t in zip(range(6), course.run(lambda t: next(verdicts)), strict=False)]
    assert sizes == [5, 5, 2, 1, 1, 5]


def test_layers_merges_and_filters_drawn_anew_do_not_change_the_size_of_a_group():
    records = [record(1), record(2, filters=(Filter(0, 0), Filter(0, 1)))]
    others = [
        record(3 + i, accepted=accepted, alteration=alteration)
        for i, (alteration, accepted) in enumerate(
            [(REMOVE_LAYER, False), ("merge", True), ("reinitialize", False), (REMOVE_LAYER, True)]
        )
    ]
    assert group_size("adaptive", records) == group_size("adaptive", records + others) == 4
    assert group_size(3, others) == 3
    assert group_size("adaptive", []) == 1


def test_the_best_that_may_go_together():
    """From a layer of two, only one: the next best of another layer goes with it."""

    def select(subject: Subject) -> np.ndarray:
        order = [Filter(0, 1), Filter(0, 0), Filter(1, 2), Filter(1, 0), Filter(1, 1)]
        return np.array([-float(order.index(filter)) for filter in subject.candidates])

    trial = Course([2, 3], new_settings(tries=0, group=3), select).next()
    assert trial.filters == (Filter(0, 1), Filter(1, 2), Filter(1, 0))
    assert trial.selection_score == 0.0


def test_one_filter_at_a_time_is_drawn_anew():
    found = trials([3], new_settings(tries=0, group=3, alterations=["reinitialize"]))
    assert [t.filters for t in found] == [(Filter(0, i),) for i in range(3)]


def test_a_group_that_failed_says_nothing_about_its_filters():
    found = trials([4], new_settings(tries=0, group=4))
    assert [len(t.filters) for t in found] == [3, 1, 1, 1, 1]
    assert [t.filters[0] for t in found[1:]] == [Filter(0, i) for i in range(4)]


# -- whatever the verdicts -----------------------------------------------------------------------


@examples(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    group=st.sampled_from(["adaptive", 1, 3]),
    alterations=st.lists(
        st.sampled_from(["disable", "disable_and_freeze", "reinitialize"]),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    tries=st.integers(0, 3),
    kept=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_nothing_that_failed_is_tried_again_in_vain_and_it_ends(
    widths, group, alterations, tries, kept, seed
):
    rng = np.random.default_rng(seed)
    chosen = new_settings(group, alterations, tries)
    without_limit = chosen.removal.model_copy(update={"max_failures": None})
    course = Course(widths, chosen.model_copy(update={"removal": without_limit}), by_chance, seed)
    failed: set[tuple[str, Filter]] = set()
    layers_failed: dict[int, int] = {}
    for trial in course.run(lambda trial: rng.random() < kept):
        network = course.network
        # The trial before has been recorded by now.
        if course.records and course.records[-1].accepted:
            last = course.records[-1].alteration
            failed = {pair for pair in failed if last == "reinitialize" == pair[0]}
            layers_failed = {} if last == REMOVE_LAYER else layers_failed
            if last == "reinitialize":
                failed.add((last, course.records[-1].filters[0]))
        elif course.records:
            former = course.records[-1]
            if former.alteration == REMOVE_LAYER:
                layer, *others = layers_of(former.filters)
                layers_failed[layer] = layers_failed.get(layer, 0) + (not others)
            elif len(former.filters) == 1:
                failed.add((former.alteration, former.filters[0]))
        assert trial.filters
        assert all(network.active[layer][index] for layer, index in trial.filters)
        if trial.alteration == REMOVE_LAYER:
            layer, *others = layers_of(trial.filters)
            assert tries and len(network.layers) > 1 + len(others)
            assert len(trial.filters) == sum(network.filters_kept[one] for one in (layer, *others))
            assert trial.attempt == (0 if others else layers_failed.get(layer, 0))
            assert trial.attempt < tries or len(trial.filters) == 1
        else:
            assert trial.alteration in alterations
            left = np.array(network.filters_kept)
            for filter in trial.filters:
                left[filter.layer] -= 1
            assert all(left[layer] >= 1 for layer in network.layers)
            assert len(trial.filters) > 1 or (trial.alteration, trial.filters[0]) not in failed
        assert len(course.records) < 300
    # It ended because there was nothing left to try.
    for alteration in alterations:
        final = {
            former.filters[0]
            for former in course.records[last_number(course.records, alteration) :]
            if len(former.filters) == 1 and former.alteration == alteration
        }
        assert set(course.network.removable()) <= final
    if len(course.network.layers) > 1:
        tried = tries_since(course.records)
        assert all(tried.get(layer, 0) >= tries for layer in course.network.layers)


def last_number(records: Sequence[DecisionRecord], alteration: str) -> int:
    """Behind the last change that was kept; of filters drawn anew, behind the last removal."""
    kept = [r.number for r in records if r.accepted]
    if alteration == "reinitialize":
        kept = [r.number for r in records if r.accepted and r.alteration != "reinitialize"]
    return max(kept, default=0)


def tries_since(records: Sequence[DecisionRecord]) -> dict[int, int]:
    """Failed removals of each layer behind the last one that was kept."""
    layers = [r for r in records if r.alteration == REMOVE_LAYER]
    while any(r.accepted for r in layers):
        layers = layers[1:]
    return {layer: sum(layers_of(r.filters) == [layer] for r in layers) for layer in range(10)}


def test_the_same_seed_and_records_make_the_same_trial():
    def names(seed: int) -> list[tuple[Filter, ...]]:
        return [t.filters for t in Course([5, 5], new_settings(tries=1), by_chance, seed).run(no_trial)]

    assert names(3) == names(3) != names(4)


# -- limits --------------------------------------------------------------------------------------


def test_a_limit_on_decisions():
    assert len(trials([4, 4], new_settings(decisions=5))) == 5


def test_a_limit_on_steps():
    """Another trial only if its steps are within the limit."""
    for limit, count in ((19, 0), (20, 1), (39, 1), (60, 3)):
        assert len(trials([4], new_settings(tries=0, steps=limit))) == count


def test_a_limit_on_steps_holds_for_layers_too():
    """A layer's session of 70 steps does not begin 50 steps before the end; those of filters do."""
    found = trials([4, 4], new_settings(steps=120))
    assert [t.steps for t in found] == [70, 20, 20]
    assert trials([4, 4], new_settings(steps=19)) == []


def test_a_last_filter_whose_layer_takes_too_long_does_not_keep_others_from_being_tried():
    """The best candidate stands for its layer, whose session is beyond the limit; the next ones are not."""
    found = trials([1, 3], new_settings(tries=1, steps=115))
    assert [t.filters[0] for t in found] == [Filter(1, 0), Filter(1, 0), Filter(1, 1)]
    assert [t.steps for t in found] == [70, 20, 20]


def test_after_many_failures_in_a_row_no_other_filter_is_tried():
    """What is kept starts the count again; layers are tried all the same."""

    def settings(most: int | None, tries: int = 0) -> Minimization:
        chosen = new_settings(tries=tries)
        removal = chosen.removal.model_copy(update={"max_failures": most})
        return chosen.model_copy(update={"removal": removal})

    for most, count in ((1, 1), (3, 3), (None, 4)):
        assert len(trials([4], settings(most))) == count
    kept = iter([False, False, True, False, False, False, False])
    assert len(list(Course([5], settings(3)).run(lambda trial: next(kept)))) == 6
    found = [trial.alteration for trial in trials([4, 4], settings(3, tries=1))]
    assert found == [REMOVE_LAYER, "disable", "disable", REMOVE_LAYER], "one try for each layer"


def test_a_limit_on_seconds():
    """Each made-up session takes three; the trial in which the limit is passed is the last one."""
    for limit, count in ((3.0, 1), (3.5, 2), (9.0, 3)):
        assert len(trials([4], new_settings(tries=0, seconds=limit))) == count


def test_a_limit_on_size():
    """Of 4 filters with a kernel of 1 x 1, each takes two multiplications."""
    course = Course([4], new_settings(tries=0, group=1, macs_per_pixel=5.0))
    assert [t.filters for t in course.run(every_trial)] == [(Filter(0, 0),), (Filter(0, 1),)]
    assert course.network.size().macs_per_pixel == 4


def test_at_a_limit_the_last_session_still_comes():
    settings = new_settings(decisions=1)
    course = Course([2, 2], settings)
    assert len(list(course.run(no_trial))) == 1
    assert course.next() == Trial(TRAIN, (), 50, learning_rate=0.003)
    course.settings = settings.model_copy(update={"last_session_steps": 0})
    assert course.next() == Trial(TRAIN, (), 0, learning_rate=0.003)


# -- the strategy's answer -----------------------------------------------------------------------


@pytest.mark.parametrize("answer", [[1.0], [[1.0] * 7], [float("nan")] * 7, ["a"] * 7, None, [np.inf] * 7])
def test_an_answer_that_is_no_scores_is_named(answer):
    def mine(subject: Subject, answer: object) -> object:
        return answer

    with pytest.raises(UserError, match=r"strategy mine must .* for each of 7 candidates") as caught:
        Course([3, 4], new_settings(tries=0), partial(mine, answer=answer)).next()
    assert "\n" not in str(caught.value)


def test_what_a_strategy_is_told():
    seen: list[Subject] = []

    def select(subject: Subject) -> np.ndarray:
        seen.append(subject)
        return in_order(subject)

    course = Course([3, 1, 2], new_settings(tries=1), select)
    course.network = with_layers(course.network, [0, 2])
    course.network.disable(Filter(0, 1))
    list(course.run(no_trial))
    first, second, *_ = seen
    assert first.candidates == [Filter(0, 0), Filter(0, 2), Filter(2, 0), Filter(2, 1)]
    assert [active.tolist() for active in first.active] == [[True, False, True], [False], [True, True]]
    assert first.last == Filter(2, 0) and second.last == Filter(0, 0)  # the layer's trial, then the filter's
    assert first.weights(1).shape[0] == 1 and not first.weights(1).any()


def test_ties_go_to_the_first():
    trial = Course([3, 2], new_settings(tries=0), lambda subject: np.zeros(5)).next()
    assert trial.filters == (Filter(0, 0),)


def test_a_trial_says_whether_it_removes_something():
    trial = Trial("disable", (Filter(0, 0),), 20, learning_rate=0.003)
    removing = {"disable", "disable_and_freeze", REMOVE_LAYER, "merge"}
    for name in (*removing, "reinitialize", TRAIN):
        assert replace(trial, alteration=name).removes == (name in removing)


@given(
    st.sets(st.sampled_from([Filter(0, i) for i in range(3)] + [Filter(1, i) for i in range(4)]), max_size=4),
    st.sampled_from(STRATEGIES.names),
    st.integers(0, 3),
)
@examples(max_examples=40, deadline=None)
def test_every_strategy_sees_the_network_as_it_would_be_compacted(train_split, off, name, seed):
    """Weights that read disabled filters do not exist in the compact network, and must not count."""
    masked = MaskedNetwork(build([3, 4, 3], kernel=3, deviation=0.5, seed=(seed,)))
    for filter in off:
        if filter in masked.removable():
            masked.disable(filter)
    scores = []
    for network in (masked, compacted(masked)):
        subject = Subject(
            network.removable(),
            network.active,
            partial(redundancy.effective_weights, network),
            None,
            np.random.default_rng(seed),
            Probe(network, train_split, "mae"),
        )
        scores.append(STRATEGIES.bind(name, {}, "strategies")(subject))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3, abs=1e-6)
