"""The page in a real browser, where Chromium is installed (Debian's package `chromium`)."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comparisons import fill, settings
from selfscale.pipeline import compare as report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, PHONE, NARROW = 1440, 390, 320
SCREENS = {WIDE: 900, PHONE: 844}  # their heights
# Frames of several widths around a page, and what is found in each, written where `--dump-dom` shows it.
FRAMES = """<!doctype html><html><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    return {{
      width: root.clientWidth,
      content: root.scrollWidth,
      title: page.querySelector("h1")?.innerText,
      details: page.querySelector("details")?.getBoundingClientRect().top,
      pictures: [...page.images].map(image => image.complete && image.naturalWidth * image.clientWidth),
      visible: [...page.images].map(image => image.checkVisibility()),
      table: page.querySelector("table")?.scrollWidth,
      requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script></body></html>"""

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium found (Debian: apt-get install chromium); the page is not rendered"
)


@pytest.fixture
def chromium(tmp_path) -> Callable[..., str]:
    """Chromium without a window; returns what it prints."""

    def run(*words: str) -> str:
        assert BROWSER
        options = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", "--allow-file-access-from-files"),
            "--proxy-server=127.0.0.1:9",  # nobody: the browser's own questions stay here, too
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        environment = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        done = subprocess.run(
            [BROWSER, *options, *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def page(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(settings(seeds=(0, 1)))
    report.compare(settings(seeds=(0, 1)))
    return tmp_path / "reports" / "index.html"


def look(chromium: Callable[..., str], page: Path, *widths: int) -> list[dict]:
    """What a browser finds in a page that is so wide."""
    frames = "".join(
        f'<iframe src="{page.name}" width="{w}" height="800" frameborder="0"></iframe>' for w in widths
    )
    wrapper = page.with_name("frames.html")
    wrapper.write_text(FRAMES.format(frames=frames), encoding="utf-8")
    shown = chromium("--dump-dom", "--virtual-time-budget=10000", wrapper.as_uri())
    (found,) = re.findall('<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    return json.loads(html.unescape(found))


def screenshot(chromium: Callable[..., str], page: Path, *options: str) -> np.ndarray:
    picture = page.with_suffix(".png")
    chromium(*options, f"--window-size={WIDE},2400", f"--screenshot={picture}", page.as_uri())
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_it_fits_every_width_shows_every_picture_and_asks_for_nothing(chromium, page):
    found = look(chromium, page, WIDE, PHONE, NARROW)
    assert [frame["width"] for frame in found] == [WIDE, PHONE, NARROW]
    for frame in found:
        assert frame["content"] == frame["width"]  # nothing hangs out
        assert frame["title"].startswith("Champion: sobel, 31% of the multiply-accumulates")
        assert all(frame["pictures"])
        assert frame["visible"] == [True] * 5 + [False] * 3  # the networks are folded away
        assert frame["requests"] == []
        if frame["width"] in SCREENS:  # three of them before the details
            assert 0 < frame["table"] < frame["width"]
            assert frame["details"] < 3 * SCREENS[frame["width"]]


def test_a_page_that_does_ask_for_more_and_hangs_out_is_noticed(chromium, page):
    """The check above sees what it is there for."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    text = text.replace(
        "</main>",
        '<p style="width: 900px">wide</p><img src="http://elsewhere.test/a.png" alt="absent"></main>',
    )
    page.write_text(text, encoding="utf-8")
    (frame,) = look(chromium, page, PHONE)
    assert frame["content"] > PHONE
    assert not all(frame["pictures"])
    assert frame["requests"] == ["http://elsewhere.test/a.png"]


def test_it_is_readable_in_light_and_dark(chromium, page):
    light = screenshot(chromium, page)
    dark = screenshot(chromium, page, "--blink-settings=preferredColorScheme=0")
    for pixels, paper in ((light, slice(240, 256)), (dark, slice(0, 48))):
        assert pixels.shape == (2400, WIDE, 3)
        assert pixels[0, 0].min() >= paper.start and pixels[0, 0].max() < paper.stop
        title = pixels[:120, : WIDE // 2]
        assert abs(title - pixels[0, 0]).max() > 150  # ink on paper
        for part in np.array_split(pixels[:1200], 4):  # pictures, figures, table: no part of it is empty
            assert (abs(part - pixels[0, 0]).max(axis=2) > 60).mean() > 0.01
