from __future__ import annotations

from typing import Any

import pytest

from selfscale.inference.latency import Speed
from selfscale.reporting.model_card import card
from selfscale.settings import Registry
from stores import RESULT

PREPARED = {
    "source": "sample",
    "size": 256,
    "fingerprint": "f" * 64,
    "counts": {
        split: {"images": count, "photographs": count // 5}
        for split, count in (("train", 36), ("validation", 12), ("test", 15))
    },
}
SPEED, INITIAL = Speed(14.2, 23.1), Speed(42.0, 84.1)
TARGETS: dict[str, Any] = {"operator": "sobel", "arguments": {"combine": "magnitude"}, "discrete": False}


def test_it_says_what_the_network_is_and_where_its_limits_are():
    text = card(RESULT, PREPARED, TARGETS, Registry(), SPEED, INITIAL)
    for part in (
        "| task | `sobel`: imitates the operator `sobel`, a gray value a pixel |",
        '| arguments | `{"combine": "magnitude"}` |',
        "| images | source `sample`, gray 256x256 crops: 36 train, 12 validation, 15 test |",
        "| data fingerprint | images `ffffffffffff`, targets `0123456789ab` |",
        "| strategy | `random`, seed 3 |",
        "Filters 5, 5 → 2, 1",
        "parameters 871 → 130",
        "| test | mae | 0.013 | 0.012 |",
        "95 % interval of the final test mae over 3 photographs: 0.0101 to 0.0149.",
        "On the validation split it is within the tolerance of 10% of the initial network's mae",
        "(validation +9.1%, test -7.7%)",
        "fewest multiply-accumulates",
        "| speed | 14.2 ms per megapixel as `selfscale apply` runs it, 23.1 as a plain model; the initial "
        "network: 42 and 84.1 (in turns, where it was registered) |",
        "| form | a plain Keras model |",
    ):
        assert part in text
    assert "threshold it" not in text
    assert len(text) < 4500  # a database keeps 5000 characters, and the link to the run is added


@pytest.mark.parametrize(("tolerance", "verdict"), [(0.1, "**not within**"), (0.25, "within")])
def test_it_admits_that_the_score_is_beyond_the_tolerance(tolerance, verdict):
    result = RESULT | {"validation": {"initial": {"mae": 0.010}, "final": {"mae": 0.012}}}
    text = card(result, PREPARED, TARGETS, Registry(tolerance=tolerance), SPEED, INITIAL)
    assert f"it is {verdict} the tolerance of {tolerance:.0%} of the initial network's mae (valid" in text
    assert "(validation +20.0%, test -7.7%)" in text


def test_a_discrete_task_is_to_be_thresholded():
    text = card(RESULT, PREPARED, TARGETS | {"discrete": True}, Registry(rule="score"), SPEED, INITIAL)
    assert "0 or 1 a pixel" in text and "threshold it" in text and "(best score)" in text


def test_of_pairs_there_is_no_operator_to_name():
    pairs = {"operator": None, "arguments": {}, "discrete": False}
    text = card(RESULT, PREPARED, pairs, Registry(), SPEED, INITIAL)
    assert (
        "| task | `sobel`: learned from pairs of an input and its wanted output, a gray value a pixel |"
        in text
    )
    assert "arguments" not in text and "None" not in text


def test_the_first_line_is_the_whole_story_and_a_fast_one_says_what_it_is():
    text = card(RESULT, PREPARED, TARGETS, Registry(), SPEED, INITIAL, "2x2")
    assert text.startswith(
        "random, seed 3: 15% of the multiply-accumulates, mae 0.012 on the test images (initial network: "
        "0.013), 14.2 ms per megapixel.\n\n| | |\n"
    )
    assert "| form | runs on blocks of 2x2 pixels; the plain model is in `extra_files` |" in text
