"""The report of the stage `worth`, from made-up records."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conftest import new_trainer
from selfscale.decisions import Filter, SessionRecord
from selfscale.nn.fcn import build
from selfscale.nn.trainer import Trainer
from selfscale.reporting.ablation_report import NOT_TESTED, as_json, content, heat_map, table
from selfscale.search.ablation import TESTS, AblationRecord, Movement, ScoreChange, Successor
from stores import worth_record as record


@pytest.fixture(scope="module")
def narrow(train_split, validation_split) -> Trainer:
    """Layers of one and of two filters."""
    return new_trainer(train_split, validation_split, build([1, 2], kernel=3))


def all_possible(trainer: Trainer) -> list[AblationRecord]:
    filters = trainer.network.hidden()
    tests = [record(test, filter) for filter in filters for test in TESTS if filter.layer]
    return [record("baseline"), record("reinitialized", Filter(0, 0)), *tests]


def test_the_json_has_all_of_the_records_but_the_seconds(narrow):
    records = [record("baseline"), *(record(test, Filter(0, 0)) for test in TESTS)]
    again = json.loads(json.dumps(content(narrow, records)))
    assert again["reference"] == 0.2
    assert again["baseline"]["filter"] is None
    for test, found in zip(records[1:], again["tests"], strict=True):
        session = found.pop("session")
        assert SessionRecord(**as_tuples(session), seconds=1.5) == test.session
        rebuilt = AblationRecord(
            **found
            | {
                "filter": Filter(*found["filter"]),
                "difference": ScoreChange(**found["difference"]),
                "against_baseline": ScoreChange(**found["against_baseline"]),
                "movements": tuple(Movement(Filter(*m["filter"]), m["distance"]) for m in found["movements"]),
                "successor": Successor(**found["successor"] | {"filter": Filter(0, 1)}),
            },
            session=test.session,
        )
        assert rebuilt == test


def as_tuples(session: dict) -> dict:
    return {
        key: tuple(map(tuple, value)) if isinstance(value, list) else value for key, value in session.items()
    }


def test_what_is_not_a_finite_number_is_null_in_json():
    assert as_json({"a": (1.5, math.nan), "b": [math.inf], "seconds": 3.0}) == {"a": [1.5, None], "b": [None]}


def test_the_table_has_a_row_for_each_test_and_says_what_was_not_possible(narrow):
    header, baseline, *rows = table(narrow.network, all_possible(narrow))
    assert {len(cells) for cells in (header, baseline, *rows)} == {len(header)}
    assert baseline[:4] == ("none", "baseline", "0.4", "0.25")
    assert baseline[5:] == ("", "layer 2 filter 0: 0.2", "")
    assert [cells[:2] for cells in rows] == [
        (f"layer {layer} filter {index}", test) for layer, index in ((0, 0), (1, 0), (1, 1)) for test in TESTS
    ]
    assert [cells[2] for cells in rows] == [NOT_TESTED] * 2 + ["0.4"] * 7
    assert rows[2][4:] == (
        "+25.0% (+12.5% to +50.0%)",
        "+30.0% (+20.0% to +40.0%)",
        "layer 2 filter 0: 0.2",
        "layer 0 filter 1: 0.50 → 0.75; itself 0.62",
    )
    assert rows[3][7] == "no other filter"


def test_the_table_says_how_a_session_ended_that_did_not_complete(narrow):
    records = [record("baseline"), record("reinitialized", Filter(0, 0), ended="dead")]
    assert table(narrow.network, records)[4][3] == "0.25 (the session ended dead)"


def test_the_heat_map_is_a_picture_of_the_records(narrow, tmp_path):
    records = all_possible(narrow)
    picture = heat_map("sobel, seed 0", narrow.network, records)
    assert picture == heat_map("sobel, seed 0", narrow.network, records)
    worse = replace(records[-1], difference=ScoreChange(-0.5, -0.6, -0.4))
    assert picture != heat_map("sobel, seed 0", narrow.network, [*records[:-1], worse])
    (tmp_path / "picture.png").write_bytes(picture)
    pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    assert (pixels == (211, 211, 211)).all(axis=-1).sum() > 2000  # light gray: two tests were not possible
    unknown = replace(records[-1], difference=ScoreChange(math.nan, math.nan, math.nan))
    assert heat_map("sobel, seed 0", narrow.network, [*records[:-1], unknown]).startswith(b"\x89PNG")
