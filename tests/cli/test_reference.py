from __future__ import annotations

import re

import pytest

from selfscale.cli import reference
from selfscale.config import Settings
from workspaces import CHECKOUT

PARAMS = (CHECKOUT / "params.yaml").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """The cells of all tables by the first one."""
    found = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0].strip("|` "): cells[1:] for cells in found}


def test_the_committed_page_is_up_to_date():
    remedy = "run `python -m selfscale.cli.reference > docs/params.md`"
    assert (CHECKOUT / "docs" / "params.md").read_text(encoding="utf-8") == reference.page(PARAMS), remedy


def test_every_key_is_there():
    def keys(model: type, prefix: str) -> set[str]:
        found = set()
        for name, field in model.model_fields.items():
            entry = field.annotation.__args__[-1] if name in ("tasks", "strategies") else field.annotation
            key = f"{prefix}{name}.NAME" if entry is not field.annotation else prefix + name
            if hasattr(entry, "model_fields"):
                found |= keys(entry, key + ".")
            else:
                found.add(prefix + name)
        return found

    wanted = {key for name in Settings.model_fields for key in keys(Settings, "") if key.startswith(name)}
    wanted = {key for key in wanted if key not in ("tasks", "strategies")}
    assert len(wanted) > 60
    assert wanted <= set(rows(reference.page(PARAMS)))


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("training.crop", "integer from 8 or `null`", "`64`"),
        ("training.warmup", "number from 0 to 1", "`0.1`"),
        ("minimization.acceptance.confidence", "number above 0.5 below 1", "`0.95`"),
        ("minimization.removal.group", "`adaptive` or integer from 1", "`adaptive`"),
        ("data.source", "`sample`, `folder`, `voc2012`", "`sample`"),
        ("tasks.NAME.loss", "`mae`, `mse`, `soft_f1`", "needed"),
        ("strategies.NAME.start", "list of integer from 1 (at least one) or `null`", "`null`"),
    ],
)
def test_types_ranges_and_defaults(key, kind, default):
    assert rows(reference.page(PARAMS))[key][:2] == [kind, default]


def test_a_key_without_a_meaning_is_an_error():
    silent = re.sub(r"(batch: 8) #.*", r"\1", PARAMS)
    with pytest.raises(ValueError, match=r"training\.batch: its meaning is said neither"):
        reference.page(silent)


def test_operators_and_strategies_are_listed_with_their_arguments():
    found = rows(reference.page(PARAMS))
    assert (
        found["canny`; discrete"][0] == "`sigma`: default `1.0`; `low`: default `0.1`; `high`: default `0.2`"
    )
    assert found["widest_gain"][0] == "`steps`: default `200`"
