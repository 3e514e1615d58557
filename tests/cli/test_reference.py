from __future__ import annotations

import re

import pytest

from selfscale.cli import reference
from selfscale.settings import Settings
from workspaces import CHECKOUT

PARAMS = (CHECKOUT / "params.yaml").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """The cells of all tables by the first one."""
    found = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0].strip("|` "): cells[1:] for cells in found}


def test_the_committed_page_is_up_to_date():
    remedy = "run `python -m selfscale.cli.reference > docs/params.md`"
    assert (CHECKOUT / "docs" / "params.md").read_text(encoding="utf-8") == reference.page(), remedy


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
    assert wanted <= set(rows(reference.page()))


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("training.crop", "integer from 8 to 8192 or `null`", "`64`"),
        ("training.warmup", "number from 0 to 1", "`0.1`"),
        ("minimization.acceptance.confidence", "number above 0.5 below 1", "`0.95`"),
        ("minimization.removal.group", "`adaptive` or integer from 1 to 1024", "`adaptive`"),
        ("data.source", "`sample`, `folder`, `voc2012`", "`sample`"),
        ("tasks.NAME.loss", "`mae`, `mse`, `soft_f1` or `null`", "`null`"),
        ("strategies.NAME.start", "list of integer from 1 to 1024 (at least one) or `null`", "`null`"),
    ],
)
def test_types_ranges_and_defaults(key, kind, default):
    assert rows(reference.page())[key][:2] == [kind, default]


def test_every_key_has_a_meaning():
    assert [
        key for key, cells in rows(reference.page()).items() if "." in key and not cells[-1].strip(" |")
    ] == []


def test_the_comments_of_params_yaml_say_the_same():
    settings = {"properties": Settings.model_json_schema()["properties"]}
    models, above, checked = Settings.model_json_schema()["$defs"], [settings], 0
    for line in PARAMS.splitlines():
        found = re.match(r"( *)(\w+):(?:[^#]*)(?:# (.*))?$", line)
        if not found or len(found[1]) // 2 >= len(above):  # entries of tasks and strategies are examples
            continue
        del above[len(found[1]) // 2 + 1 :]
        kind = above[-1]["properties"][found[2]]
        assert found[3] == (None if "patternProperties" in kind else kind.get("description")), line
        checked += found[3] is not None
        if "$ref" in kind:
            above.append(models[kind["$ref"].rpartition("/")[2]])
    assert checked > 60


def test_operators_and_strategies_are_listed_with_their_arguments():
    found = rows(reference.page())
    assert (
        found["canny`; discrete"][0] == "`sigma`: default `1.0`; `low`: default `0.1`; `high`: default `0.2`"
    )
    assert found["widest_gain"][0] == "`steps`: default `200`"
