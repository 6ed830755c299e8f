"""cli.picture: a rollover over time as one file, drawn by a real browser without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.cli.picture.page import (
    drawings,
    page,
    share_of_time,
    since_the_look_before,
    steps,
)
from adroit_publish.cli.picture.plot import nice_top, ticks
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


def test_without_a_look_it_says_so_and_draws_the_shares():
    html = page(replace(rollover(), samples=()))
    assert "No look was kept yet" in html
    assert html.count("<svg") == 1
    assert html.count('class="mark"') == 5


def test_every_step_is_marked_by_its_number_in_the_list():
    (share, *_) = drawings(rollover())
    numbers = re.findall(r'class="number"[^>]*>([^<]*)<', share)
    assert numbers == ["1", "2", "3", "4", "5"]
    at_once = replace(rollover(), history=tuple(
        replace(entry, at_s=NOON_S + n) for n, entry in enumerate(rollover().history)
    ))  # fmt: skip
    (share, *_) = drawings(at_once)
    assert re.findall(r'class="number"[^>]*>([^<]*)<', share) == ["1–5"]
    for number, _when, state, *_ in steps(rollover()):
        assert f"<td>{number}<td>" in page(rollover())
        assert f"<title>{number}: {state}, 2026-11-24 " in next(drawings(rollover()))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (40, ["12:00:00", "12:00:10", "12:00:20", "12:00:30", "12:00:40"]),
        (2400, ["12:00", "12:10", "12:20", "12:30", "12:40"]),
        (86400, ["12:00", "18:00", "25 Nov", "06:00", "12:00"]),
        (20 * 86400, ["26 Nov", "3 Dec", "10 Dec"]),
        (0, ["12:00:00"]),
    ],
)
def test_the_axis_of_time_has_few_round_moments(seconds, written):
    assert [text for _, text in ticks(NOON_S, NOON_S + seconds)] == written


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_every_axis_has_room_for_its_labels_and_its_values(begin, length):
    assert len(ticks(begin, begin + length)) <= 6 or length > 560 * 86400
    assert length <= nice_top(length) * (1 + 1e-9)


def test_a_share_changes_when_the_sitevar_was_set_and_not_at_the_next_look():
    history = (
        Transition(NOON_S, "eve", None, "proposed"),
        Transition(NOON_S + 10, "eve", "pointing", "pointed"),
        Transition(NOON_S + 70, "eve", "pointing", "pointed"),
        Transition(NOON_S + 90, "eve", "rolling back", "rolled back"),
    )
    looks = ({**rollover().samples[0], "at_s": NOON_S + 75, "share": 50},)
    rolled_back = replace(rollover(), history=history, samples=looks, shares=(0.0,))
    shares = [(at_s - NOON_S, share) for at_s, share in share_of_time(rolled_back, NOON_S + 90)]
    assert shares == [(0, 0), (10, 10), (70, 50), (90, 0), (90, 0)]


def test_what_is_drawn_is_what_was_counted_since_the_look_before():
    def look(window_s, old, new, share=10.0):
        return {
            "at_s": NOON_S + window_s, "share": share, "window_s": window_s,
            "old": counted(old, 0, None), "new": counted(new, 0, None),
        }  # fmt: skip

    looks = (look(60.0, 600, 60), look(120.0, 660, 72), look(30.0, 30, 3), look(60.0, 90, 9, 50.0))
    found = [
        (since["window_s"], since["old"]["requests"], since["new"]["requests"])
        for since in since_the_look_before(looks)
    ]
    # A second look of one step is the difference; a shorter window, or another share, is its own.
    assert found == [(60, 600, 60), (60, 60, 12), (30, 30, 3), (60, 90, 9)]


def test_a_drawing_stands_alone():
    for drawing in drawings(rollover()):
        root = ElementTree.fromstring(drawing)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in drawing
        assert 'class="paper"' in drawing  # a card may be light where the reader's screen is dark


@pytest.mark.parametrize("width", [400, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_real_browser_draws_it(tmp_path, scheme, width):
    chromium = shutil.which("chromium")
    require(chromium, "chromium (apt install chromium)")
    (tmp_path / "page.html").write_text(page(rollover()))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *dark,
         f"--user-data-dir={tmp_path}/profile", f"--window-size={width},1300",
         f"--screenshot={tmp_path}/page.png", f"file://{tmp_path}/page.html"],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 10_000, done.stderr
