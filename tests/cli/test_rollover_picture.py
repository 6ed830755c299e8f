"""cli.picture: a rollover over time as one file, drawn by a real browser without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from adroit_publish.cli.picture.page import page
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.state import Rollover, Side, Transition
from tests.support.requirements import require

CHECKS = Checks(("http://new",), None, ("prometheus:http://p",), 60.0, 0.01, 1e-6, 120.0)
NOON_S = 1795521600.0


def counted(requests, errors, p50_s):
    return {
        "requests": requests, "errors": errors, "p50_s": p50_s,
        "p99_s": p50_s and 4 * p50_s,
    }  # fmt: skip


def rollover(looks=40):
    samples = tuple(
        {
            "at_s": NOON_S + 60 * n,
            "share": (0, 10, 50, 100)[min(3, n // 10)],
            "window_s": 60.0 * (n % 10 + 1),
            "old": counted(100 * (40 - n), 2, 0.004) if n < 36 else counted(0, 0, None),
            "new": counted(100 * n, n, 0.003) if n else counted(0, 0, None),
        }
        for n in range(looks)
    )
    steps = ("pointed", "pointed", "pointed", "draining", "drained")
    history = tuple(
        Transition(NOON_S + 600 * n, "eve", None, state, "<b>why</b>" if n == 1 else None)
        for n, state in enumerate(steps)
    )
    return Rollover(
        "0001", "fraud", Side("fraud_<1>", "v-old", "sha256:old"),
        Side("fraud_2", "v-new", "sha256:new"), (10.0, 50.0, 100.0), CHECKS, state="drained",
        shares=(100.0,), history=history, samples=samples,
    )  # fmt: skip


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_says_what_it_draws():
    html = page(rollover())
    parser = Links()
    parser.feed(html)
    names = [tag for tag, _ in parser.tags]
    assert names.count("svg") == 4
    assert not {"script", "link", "img", "iframe"} & set(names)
    assert not [a for _, a in parser.tags if {"src", "href"} & a.keys()]
    assert "<b>why" not in html
    assert "fraud_<1>" not in html
    for word in ("Share of the traffic", "Requests by second", "Errors", "Latency", "drained"):
        assert word in html
    assert html.count('class="mark"') == 4 * 5


def test_without_a_look_it_says_so():
    assert "No look was kept yet" in page(replace(rollover(), samples=()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_real_browser_draws_it(tmp_path, scheme):
    chromium = shutil.which("chromium")
    require(chromium, "chromium (apt install chromium)")
    (tmp_path / "page.html").write_text(page(rollover()))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *dark,
         f"--user-data-dir={tmp_path}/profile", "--window-size=940,1300",
         f"--screenshot={tmp_path}/page.png", f"file://{tmp_path}/page.html"],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 10_000, done.stderr
