from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selfscale.cli import loading
from selfscale.errors import UserError
from selfscale.settings import Settings, load

ROOT = Path(__file__).parent.parent
DEFAULTS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def load_changed(tmp_path: Path, old: str, new: str) -> Settings:
    assert old in DEFAULTS
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULTS.replace(old, new, 1), encoding="utf-8")
    return loading.load(path)


def test_the_defaults_in_params_yaml_are_those_of_the_schema():
    settings = loading.load(ROOT / "params.yaml")
    bare = Settings(runs=settings.runs, tasks=settings.tasks, strategies=settings.strategies)
    assert settings == bare


def test_settings_are_frozen():
    settings = loading.load(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        settings.training.batch = 9


def test_floats_may_be_written_as_in_yaml_1_2(tmp_path):
    assert (
        load_changed(
            tmp_path, "learning_rate: 0.01 # of the f", "learning_rate: 5e-3 # of the f"
        ).training.learning_rate
        == 0.005
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: 256", "sze: 256", "data: 'sze' is unknown; did you mean 'size'? valid: folder, "),
        (
            "    max_cycles: 3",
            "    max_cycle: 6",
            "training.first: 'max_cycle' is unknown; did you mean 'max_cycles'?",
        ),
        ("select: random", "slect: random", "strategies.random: 'slect' is unknown; did you mean 'select'?"),
        ("loss: mae #", "los: mae #", "tasks.sobel: 'los' is unknown; did you mean 'loss'?"),
        ("batch: 8", "batch: '8'", "training.batch: input should be a valid integer, not '8'"),
        ("batch: 8", "batch: 0", "training.batch: input should be greater than or equal to 1, not 0"),
        ("batch: 8", "batch: 5000", "training.batch: input should be less than or equal to 4096, not 5000"),
        ("evaluations: 4", "evaluations: 1e9", "training.evaluations: input should be a valid integer"),
        (
            "evaluations: 4",
            "evaluations: 1000000",
            "training.evaluations: input should be less than or equal",
        ),
        ("threads: 1", "threads: 100000", "execution.threads: input should be less than or equal to 1024"),
        ("workers: null", "workers: 100000", "execution.workers: input should be less than or equal to 1024"),
        ("kernel: 5", "kernel: 501", "network.kernel: input should be less than or equal to 63, not 501"),
        ("widths: [5, 5]", "widths: [99999]", "network.widths.0: input should be less than or equal to 1024"),
        ("crop: 64", "crop: 99999", "training.crop: input should be less than or equal to 8192"),
        ("size: 256", "size: 99999", "data.size: input should be less than or equal to 8192"),
        ("    steps: 2000", "    steps: 99999999", "minimization.layers.steps: input should be less than or"),
        (
            "    steps: 4500",
            "    steps: 99999999",
            "minimization.limits.steps: input should be less than or",
        ),
        ("tolerance: 0.1", "tolerance: -0.1", "minimization.tolerance: "),
        ("tolerance: 0.1", "tolerance: .nan", "minimization.tolerance: "),
        (
            "[disable]",
            "[disble]",
            "minimization.removal.alterations.0: 'disble' is unknown; did you mean 'disable'? "
            "valid: disable, disable_and_freeze, reinitialize",
        ),
        ("[disable]", "[]", "minimization.removal.alterations: "),
        ("group: adaptive", "group: adaptve", "minimization.removal.group: expected 'adaptive' or a number"),
        (
            "group: adaptive",
            "group: 0",
            "minimization.removal.group: expected 'adaptive' or a number of filters from 1 to 1024, not 0",
        ),
        (
            "rule: non_inferiority",
            "rule: non_inferior",
            "minimization.acceptance.rule: 'non_inferior' is unknown; did you mean 'non_inferiority'? "
            "valid: non_inferiority, threshold",
        ),
        (
            "reference: initial",
            "reference: intial",
            "minimization.acceptance.reference: 'intial' is unknown; did you mean 'initial'? "
            "valid: best, initial, previous",
        ),
        (
            "confidence: 0.95",
            "confidence: 1.0",
            "minimization.acceptance.confidence: input should be less than 1",
        ),
        ("tries: 2", "tries: -1", "minimization.layers.tries: "),
        (
            "learning_rate: 0.01 # of these",
            "learning_rate: 0 # of these",
            "minimization.layers.learning_rate: ",
        ),
        ("  layers: #", "  layer: #", "minimization: 'layer' is unknown; did you mean 'layers'?"),
        ("decisions: null", "decisions: 0", "minimization.limits.decisions: "),
        ("seconds: null", "second: 5", "minimization.limits: 'second' is unknown; did you mean 'seconds'?"),
        ("macs_per_pixel: null", "macs_per_pixel: -1", "minimization.limits.macs_per_pixel: "),
        ("widths: [5, 5]", "widths: []", "network.widths: "),
        ("source: sample", "source: smple", "data.source: 'smple' is unknown; did you mean 'sample'?"),
        ("loss: mae #", "loss: maee #", "tasks.sobel.loss: 'maee' is unknown; did you mean 'mae'?"),
        ("loss: mae #", "loss: soft_f1 #", "tasks.sobel.loss: soft_f1 needs a discrete operator"),
        (
            "operator: canny",
            "operator: cany",
            "tasks.canny.operator: 'cany' is unknown; did you mean 'canny'?",
        ),
        ("{sigma: 1.0,", "{sigm: 1.0,", "tasks.canny.arguments: 'sigm' is unknown; did you mean 'sigma'?"),
        ("select: cosine, arg", "select: cosin, arg", "strategies.cosine.select: 'cosin' is unknown"),
        ("tasks: [sobel", "tasks: [sobl", "runs.tasks: 'sobl' is unknown; did you mean 'sobel'?"),
        ("strategies: [random", "strategies: [rndom", "runs.strategies: 'rndom' is unknown"),
        ("validation: 0.3", "validation: 0.2", "data.split: train, validation and test must add up to 1"),
        ("runs:", "rns:", "settings: 'rns' is unknown; did you mean 'runs'?"),
        ("network: #", "network: [ #", "is not valid YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(tmp_path, old, new, message):
    with pytest.raises(UserError) as caught:
        load_changed(tmp_path, old, new)
    assert message in str(caught.value)
    assert str(tmp_path / "params.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "just text", "- a list"])
def test_what_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="expected settings by section"):
        load(path)


def numbers(schema: object, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every number of a JSON schema, with the names of its limits."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield path, {name[-7:].lower() for name in schema if name.lower().endswith("imum")}
        for key, value in schema.items():
            yield from numbers(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for value in schema:
            yield from numbers(value, path)


def test_every_number_has_two_limits():
    found = list(numbers(Settings.model_json_schema()))
    assert len(found) > 40
    assert [path for path, limits in found if limits != {"minimum", "maximum"}] == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0]", "seeds: [0, 0, 0]", "runs.seeds: the same twice counts as two runs, but is one"),
        ("tasks: [sobel,", "tasks: [sobel, sobel,", "runs.tasks: the same twice"),
        ("[random, sequential", "[random, random, sequential", "runs.strategies: the same twice"),
        (
            "widths: [5, 5]",
            "widths: [1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024]",
            "has 1.8e\\+08 weights",
        ),
        ("crop: 64", "crop: 8192", "values in a training step"),
        ("batch: 8 ", "batch: !!int x ", "is not valid YAML: invalid literal"),
        ("batch: 8 ", "batch: 2020-99-99 ", "is not valid YAML: month must be in 1..12"),
        ("arguments: {sigma: 1.0,", "arguments: &a {b: *a, sigma: 1.0,", "more than 20 levels"),
        ("batch: 8 ", f"batch: {'[' * 3000}{']' * 3000} ", "is not valid YAML: "),
        ("batch: 8 ", f"batch: 0x{'f' * 5000} ", "a number of more than 64 bits"),
    ],
)
def test_values_without_bounds_are_one_line(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message) as error:
        load_changed(tmp_path, old, new)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("start", [(1_000_000,), (0,), (1024,) * 60, (5,) * 65])
def test_a_start_from_the_command_line_has_the_limits_of_the_file(start):
    with pytest.raises(UserError, match="the start: "):
        loading.load(ROOT / "params.yaml").starting_from(start)
