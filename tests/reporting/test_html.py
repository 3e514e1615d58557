from __future__ import annotations

import itertools
import re
from base64 import b64encode
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from comparisons import SEEDS, fill, fill_job, result, settings
from selfscale.errors import UserError
from selfscale.files import read_json, write_json
from selfscale.paths import Baseline, Job, pictures_folder
from selfscale.pipeline import compare as report
from selfscale.reporting.html import Champion, html_page
from selfscale.reporting.pareto import choose_by_rule
from selfscale.reporting.statistics import QUANTITIES
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


def test_it_begins_with_the_answer(compared):
    ((_, title),) = compared.named("h1")
    assert re.fullmatch(
        r"Champion: sobel, 31% of the multiply-accumulates, error 0\.0040 \(baseline 0\.0045\), "
        r"[\d.e+]+ ms per megapixel",
        title,
    )
    texts = compared.texts("p")
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\d \d\d:\d\d · sample photographs "
        r"\(8 pixels; 2 train, 2 validation, 2 test\)",
        texts[0],
    )
    assert "random, seed 0" in texts[1] and "within the tolerance of 10%" in texts[1]
    assert compared.texts("figcaption")[:4] == [
        "photograph",
        "wanted (white: 0.5)",
        "initial: 875 MACs/pixel, error 0.0050",
        "minimized: 275 MACs/pixel, error 0.0040",
    ]


def test_it_has_headings_captions_and_alternative_texts(compared):
    levels = [HEADINGS.index(name) for name, *_ in compared.all if name in HEADINGS]
    assert levels[0] == 0 and levels.count(0) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(compared.named("caption")) == len(compared.named("table")) == 5
    assert all(compared.texts("caption")) and all(compared.texts("summary"))
    images = [attributes for attributes, _ in compared.named("img")]
    assert len(images) == 4 + 1 + 3
    assert all(image["alt"] and int(image["width"]) and int(image["height"]) for image in images)
    assert all(attributes.get("scope") for attributes, _ in compared.named("th"))
    ((root, _),) = compared.named("html")
    assert root["lang"] == "en"
    targets = [a["href"].removeprefix("#") for a, _ in compared.named("a")]
    assert set(targets) <= {a.get("id") for _, a, _ in compared.all}


def test_one_table_is_for_everybody_and_those_of_the_markdown_are_folded_away(compared):
    cells = [text for _, text in compared.named("th", "td")]
    brief, rest = cells[:30], cells[30:]
    took = brief[9::6]
    assert brief[:18] == [
        *("task", "network", "MACs per pixel", "ms", "test error", "vs baseline"),
        *("sobel", "initial", "875", took[0], "0.005", ""),
        *("sobel", "random", "275 ± 0", took[1], "0.012 ± 0.00785", "+167% ± 175%"),
    ]
    assert len(took) == 4 and all(float(cell) > 0 for cell in took)
    lines = Path("reports/comparison.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|") and "| --- |" not in line]
    markdown = [cell.strip() for line in rows for cell in line.strip("|").split("|")]
    assert rest[: len(markdown)] == markdown
    assert rest[len(markdown) :] == [
        *("", "tried", "outcome", "filters left", "parameters", "training steps", "reason"),
        *("1", "disable layer 0 filter 4", "accepted", "4, 5", "735", "600"),
        "score -7.5%, within the tolerance 10.0%",
        *("2", "remove_layer layer 1", "reverted", "4, 5", "735", "600", "score +70.0%, not within it"),
        *("3", "disable layer 0 filter 3, layer 1 filter 0, layer 1 filter 1, layer 1 filter 2"),
        *("accepted", "4, 5", "735", "600", "score -7.5%, within the tolerance 10.0%"),
    ]
    assert "".join(compared.texts("details")).count("strategy") >= 3


def test_the_pictures_are_those_of_the_files(compared):
    best = choose_by_rule(read_json(Path("reports/comparison.json"), "compare"), "sobel", Registry())
    folder = Job(best["task"], best["strategy"], best["seed"]).output
    networks = [pictures_folder(folder, number) / "1.png" for number in (0, 1, 3)]
    files = [Path("reports/figures/frontier-sobel.png"), *networks]
    sources = [attributes["src"].partition(",")[2] for attributes, _ in compared.named("img")]
    assert sources[4:] == [b64encode(path.read_bytes()).decode() for path in files]
    names = [text.partition(":")[0] for text in compared.texts("figcaption")][4:]
    assert names == ["Initial", "After decision 1", "After decision 3"]


def test_names_are_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job("<script>alert('&amp;')<|script>", '"><b>', 0)
    content = result(job.task, job.strategy, job.seed)
    fill_job(job, content)
    estimate = {"mean": 1.0, "half_width": None}
    comparison = {
        "results": {job.name: content},
        "baseline": {Baseline(job.task, job.seed).name: content},
        "summary": {job.task: {job.strategy: dict.fromkeys(QUANTITIES, estimate)}},
        "paired": {job.task: []},
    }
    picture = (pictures_folder(job.output, 0) / "1.png").read_bytes()
    champion = Champion(job, {"photograph": picture}, (2.0, 1.0), {job.strategy: 1.0}, picture)
    elements = Elements(html_page(comparison, 1, {job.task: champion}, Registry(), "today"))
    assert not elements.named("script") and not elements.named("b")
    assert elements.texts("h2")[0] == job.task
    assert job.strategy in elements.texts("p")[1]


def test_networks_that_were_not_accepted_need_no_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(settings())
    path = Job("sobel", "random", 0).output / "result.json"
    content = read_json(path, "minimize")
    # Of the reverted trial, and of the frontier, which comes behind the decisions.
    content["kept"] += [content["kept"][0] | {"decision": number} for number in (2, 4)]
    write_json(path, content)
    report.compare(settings())
    captions = Elements(Path("reports/index.html").read_text(encoding="utf-8")).texts("figcaption")
    names = [text.partition(":")[0] for text in captions][4:]
    assert names == ["Initial", "After decision 1", "After decision 3"]


def test_missing_pictures_name_the_stage_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(settings())
    path = pictures_folder(Job("sobel", "random", 0).output, 3) / "1.png"
    whole = path.read_bytes()
    for damage, words in ((path.unlink, "missing"), (partial(path.write_bytes, whole[:-20]), "damaged")):
        damage()
        with pytest.raises(
            UserError, match=f"{path}: is {words}; run `selfscale minimize sobel --strategy random"
        ):
            report.compare(settings())
    assert not Path("reports").exists()
