"""Bars on a terminal: none for what is soon done, and never in a line."""

from __future__ import annotations

import io

from rich.console import Console

from adroit_publish.cli.progress import Bars


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched():
    clock, seen = Clock(), io.StringIO()
    console = Console(file=seen, force_terminal=True, width=80, legacy_windows=False)
    return Bars(console, clock), clock, console, seen


def test_what_takes_under_a_second_has_no_bar():
    bars, clock, _, seen = watched()
    bars.moved("a: upload", 1, 9)
    clock.now = 0.9
    bars.moved("a: upload", 5, 9)
    bars.ended("a: upload")
    bars.close()
    assert seen.getvalue() == ""


def test_what_is_done_when_a_second_has_passed_has_no_bar_either():
    bars, clock, _, seen = watched()
    bars.moved("a: upload", 1, 9)
    clock.now = 60
    bars.moved("a: upload", 9, 9)
    assert seen.getvalue() == ""
    bars.close()


def test_what_takes_longer_has_one_and_lines_go_above_it():
    bars, clock, console, seen = watched()
    bars.moved("a: upload", 1 << 20, 9 << 20)
    clock.now = 1.5
    bars.moved("a: upload", 2 << 20, 9 << 20)
    line = "a: snapshot source     0.10 s  " + "x" * 70
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    bars.ended("a: upload")
    bars.close()
    shown = seen.getvalue()
    assert "a: upload" in shown
    before = shown.partition(line)[0]
    assert before.endswith(("\x1b[2K", "\r\x1b[2K", "\n", "\x1b[1A\x1b[2K"))  # on a cleared line
    assert shown.partition(line)[2].startswith("\n")


def test_a_bar_that_has_ended_is_not_drawn_under_the_next():
    bars, clock, _, seen = watched()
    for name in ("a: pull", "a: upload"):
        bars.moved(name, 1, 9)
        clock.now += 1.5
        bars.moved(name, 2, 9)
        bars.ended(name)
        seen.truncate(0)
    bars.moved("a: upload", 1, 9)
    clock.now += 1.5
    bars.moved("a: upload", 2, 9)
    bars.close()
    assert "a: upload" in seen.getvalue()
    assert "a: pull" not in seen.getvalue()


def test_a_long_name_leaves_room_for_the_numbers():
    bars, clock, _, seen = watched()
    name = "my_flavor: upload layers to 123456789012.dkr.ecr.us-east-1.amazonaws.com/adroit"
    bars.moved(name, 1 << 20, 9 << 20)
    clock.now = 1.5
    bars.moved(name, 2 << 20, 9 << 20)
    bars.close()
    assert "my_flavor: upload" in seen.getvalue()
    assert "2.1/9.4 MB" in seen.getvalue()
