from __future__ import annotations

import itertools
from html.parser import HTMLParser
from pathlib import Path

import pytest

from comparisons import SEEDS, decision, fill, fill_job, result, settings
from selfscale.errors import UserError
from selfscale.files import read_json
from selfscale.paths import Job, pictures_folder
from selfscale.pipeline import compare as report
from selfscale.reporting.html import decision_text, embedded, html_page
from selfscale.reporting.pareto import choose_by_rule
from selfscale.settings import Registry

# Elements that HTML ends by itself.
VOID = {"meta", "img", "br", "link", "input", "hr"}
HEADINGS = ["h1", "h2", "h3"]


class Elements(HTMLParser):
    """All elements of a page, as (name, attributes, text); raises AssertionError if they are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.all) - 1)

    def handle_endtag(self, tag):
        assert self.all[self._open.pop()][0] == tag

    def handle_data(self, data):
        for position in self._open:
            self.all[position][2].append(data)

    def named(self, *names: str) -> list[tuple[dict[str, str | None], str]]:
        found = [element for element in self.all if element[0] in names]
        return [(attributes, " ".join("".join(texts).split())) for _, attributes, texts in found]

    def texts(self, name: str) -> list[str]:
        return [text for _, text in self.named(name)]


@pytest.fixture
def compared(tmp_path, monkeypatch) -> Elements:
    """The page of made-up results of one task."""
    monkeypatch.chdir(tmp_path)
    fill(settings(seeds=SEEDS))
    report.compare(settings(seeds=SEEDS))
    return Elements((tmp_path / "reports" / "index.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_else(compared):
    assert not compared.named("script", "link", "iframe", "object", "base")
    for name, attributes, _ in compared.all:
        for key in ("src", "href", "srcset", "action"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:", "#", "")[name == "a" :]) and "//" not in value[:16]
    (style,) = compared.texts("style")
    assert "url(" not in style and "@import" not in style
    (policy,) = (a["content"] for a, _ in compared.named("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_it_has_headings_captions_and_alternative_texts(compared):
    levels = [HEADINGS.index(name) for name, *_ in compared.all if name in HEADINGS]
    assert levels[0] == 0 and levels.count(0) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(compared.named("caption")) == len(compared.named("table")) == 3
    assert all(compared.texts("caption"))
    images = [attributes for attributes, _ in compared.named("img")]
    assert len(images) == 2 + 3
    assert all(image["alt"] and int(image["width"]) > 100 and int(image["height"]) > 100 for image in images)
    assert all(attributes.get("scope") for attributes, _ in compared.named("th"))
    ((root, _),) = compared.named("html")
    assert root["lang"] == "en"
    targets = [a["href"].removeprefix("#") for a, _ in compared.named("a")]
    assert set(targets) <= {a.get("id") for _, a, _ in compared.all}


def test_it_has_the_tables_of_the_markdown(compared):
    lines = Path("reports/comparison.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|") and "| --- |" not in line]
    cells = [cell.strip() for line in rows for cell in line.strip("|").split("|")]
    assert [text for _, text in compared.named("th", "td")] == cells


def test_it_shows_the_networks_of_the_minimization_that_the_registry_would_take(compared):
    chosen = read_json(Path("reports/comparison.json"), "compare")
    best = choose_by_rule(chosen, "sobel", Registry())
    assert f"The shrinking network: {best['strategy']}, seed {best['seed']}" in compared.texts("h3")
    names = [text.partition(" filters ")[0] for text in compared.texts("figcaption")][2:]
    assert names == ["Initial network", "After decision 1", "After decision 3 (final)"]
    assert compared.texts("li")[-3:] == [
        "Switch off layer 0 filter 4: 600 training steps. Accepted: score -7.5%, within the tolerance 10.0%. "
        "Filters left: 4 and 5; 735 parameters.",
        "Remove layer 1 as a whole: 600 training steps. Reverted: score +70.0%, not within it. "
        "Filters left: 4 and 5; 735 parameters.",
        "Switch off layer 0 filter 3, layer 1 filters 0, 1 and 2: 600 training steps. "
        "Accepted: score -7.5%, within the tolerance 10.0%. Filters left: 4 and 5; 735 parameters.",
    ]


def test_the_pictures_are_those_of_the_files(compared):
    sources = [attributes["src"] for attributes, _ in compared.named("img")]
    figures = [Path(f"reports/figures/{kind}-sobel.png") for kind in ("size", "curve")]
    folder = Job("sobel", "random", 0).output
    networks = [pictures_folder(folder, number) / "1.png" for number in (0, 1, 3)]
    assert sources == [embedded(path.read_bytes(), "").source for path in [*figures, *networks]]


def test_names_are_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "<script>alert('&amp;')</script>"
    job = Job(name.replace("/", "|"), '"><b>', 0)
    content = result(job.task, job.strategy, job.seed)
    fill_job(job, content)
    estimate = {"mean": 1.0, "half_width": None}
    summary = dict.fromkeys(("filters", "hidden_layers", "parameters", "macs_per_pixel"), estimate)
    summary |= dict.fromkeys(("validation_score", "test_score", "decisions", "training_steps"), estimate)
    comparison = {
        "results": {job.name: content},
        "baseline": {"one": content},
        "summary": {job.task: {job.strategy: summary}},
        "paired": {job.task: []},
    }
    html = html_page(comparison, 1, {job.task: {}}, {job.task: job}, Registry())
    elements = Elements(html)
    assert not elements.named("script")
    assert elements.texts("h2")[1] == job.task
    assert f"The shrinking network: {job.strategy}, seed 0" in elements.texts("h3")


def test_missing_pictures_name_the_stage_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(settings())
    path = pictures_folder(Job("sobel", "random", 0).output, 3) / "1.png"
    path.unlink()
    with pytest.raises(
        UserError, match=f"{path}: is missing; run `selfscale minimize sobel --strategy random"
    ):
        report.compare(settings())
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("alteration", "filters", "words"),
    [
        (
            "disable_and_freeze",
            [[0, 1]],
            "Switch off layer 0 filter 1, the other filters of the layer held fast",
        ),
        ("reinitialize", [[1, 2]], "Draw the weights of layer 1 filter 2 anew"),
        ("merge", [[1, 2]], "Leave out layer 1 filter 2, which adds nothing of its own"),
        ("remove_layer", [[0, 0], [2, 0]], "Remove layers 0 and 2 as a whole"),
        ("widen", [[1, 2], [1, 3]], "Add 2 filters to layer 1"),
        ("widen", [[0, 1], [1, 2], [1, 3]], "Add 3 filters to layers 0 and 1"),
        ("insert_layer", [[1, 0]], "Insert a layer of 1 filter as layer 1"),
        ("train_on", [], "Train on without a change"),
        ("train", [], "Train what is left once more"),
    ],
)
def test_every_decision_has_words(alteration, filters, words):
    assert decision_text(decision(1, alteration, filters, True)).tried.startswith(words)
