"""``hold: "why"`` in flavors.yaml, set and taken away with every other byte as it was."""

from __future__ import annotations

import re

import pytest

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_edit import clear_hold, set_hold
from adroit_publish.errors import ConfigError

V = "v5f2b9c01-3f0c9a1b2c3d"
BLOCK = (
    f"# top\na:\n  config: p/c.yaml\n  conda_env: e   # an env\n  version: {V}   # live\n\n# b\n"
)
SECOND = "b: {config: p/c.yaml, conda_env: e}\n"


def held(data: bytes) -> dict[str, str | None]:
    return {name: flavor.hold for name, flavor in parse_flavors(data).items()}


def test_a_hold_is_a_line_of_the_flavor():
    text = set_hold((BLOCK + SECOND).encode(), "a", 'rolled back: "p99" up').decode()
    line = '  hold: "rolled back: \\"p99\\" up"\n'
    assert text == BLOCK.replace("# live\n", f"# live\n{line}") + SECOND
    assert held(text.encode())["a"] == 'rolled back: "p99" up'


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("flavor", ["a", "b"])
@pytest.mark.parametrize(
    "why", ["x", "yes", "null", "1e5", "ein Grund: größer # als \\ nichts", "é'\""]
)
def test_hold_and_unhold_leave_the_file_as_it_was(eol: str, end: str, flavor: str, why: str):
    data = ((BLOCK + SECOND).rstrip("\n") + end).replace("\n", eol).encode()
    once = set_hold(data, flavor, why)
    assert held(once) == {"a": None, "b": None} | {flavor: why}
    assert clear_hold(once, flavor) == data


def test_a_hold_at_the_end_of_a_file_without_a_line_break_goes_as_it_came():
    data = BLOCK.rstrip("\n# b").encode()
    assert clear_hold(set_hold(data, "a", "x"), "a") == data


@pytest.mark.parametrize(
    "there", ["", "old", "'old'", '"old"  # since May', "|\n    old\n    lines", "true", "&h old"]
)
def test_a_hold_that_is_there_is_replaced(there: str):
    text = f"a:\n  config: p/c.yaml\n  hold: {there}\n  conda_env: e\n"
    new = set_hold(text.encode(), "a", "new")
    assert held(new) == {"a": "new"}
    assert held(clear_hold(new, "a")) == {"a": None}
    assert clear_hold(new, "a") == b"a:\n  config: p/c.yaml\n  conda_env: e\n"


def test_the_first_entry_of_a_flow_mapping_can_go():
    text = b"a: {hold: x, config: p/c.yaml, conda_env: e}\n"
    assert clear_hold(text, "a") == b"a: {config: p/c.yaml, conda_env: e}\n"


@pytest.mark.parametrize(
    "last", ["version: ", "version:", '"version":', "version: null", "version"]
)
def test_a_flow_mapping_that_ends_in_an_empty_value_is_held_and_freed(last: str):
    text = f"{{a: {{config: p/c.yaml, conda_env: e, {last} }}, {SECOND.strip()}}}\n".encode()
    once = set_hold(text, "a", "x, {y}")
    assert held(once) == {"a": "x, {y}", "b": None}
    assert clear_hold(once, "a") == text


def test_a_hold_that_is_merged_in_is_overruled_and_an_alias_gets_one_of_its_own():
    text = "a: &a\n  config: p/c.yaml\n  conda_env: e\n  hold: all of them\nb:\n  <<: *a\nc: *a\n"
    free = clear_hold(text.encode(), "b")
    assert free == text.replace("  <<: *a\n", "  <<: *a\n  hold: null\n").encode()
    assert held(free) == {"a": "all of them", "b": None, "c": "all of them"}
    own = set_hold(free, "b", "mine")
    assert held(own)["b"] == "mine"
    assert held(clear_hold(own, "b"))["b"] is None
    assert held(set_hold(text.encode(), "c", "c's")) == {
        "a": "all of them", "b": "all of them", "c": "c's",
    }  # fmt: skip


def test_a_hold_that_others_would_get_too_is_refused():
    text = "a: &a\n  config: p/c.yaml\n  conda_env: e\nb:\n  <<: *a\n"
    with pytest.raises(ConfigError, match="without changing 'b'"):
        set_hold(text.encode(), "a", "x")


@pytest.mark.parametrize("why", ["", "  ", "two\nlines", "bell\x07", "x" * 501])
def test_a_reason_is_one_line_of_text(why: str):
    with pytest.raises(ConfigError, match="Not a valid reason"):
        set_hold(BLOCK.encode(), "a", why)


def test_what_is_not_held_is_left_alone():
    assert clear_hold(BLOCK.encode(), "a") == BLOCK.encode()
    with pytest.raises(ConfigError):
        set_hold(BLOCK.encode(), "nope", "x")


@pytest.mark.parametrize(
    ("other", "own", "typed"),
    [
        ("b:\n  <<: *a\n", "b:\n  <<: *a\n  hold: null\n", "hold: null"),
        ("b: *a\n", "b: {<<: *a, hold: null}\n", "{<<: *a, hold: null}"),
        ("b: {<<: *a}\n", "b: {<<: *a, hold: null}\n", "hold: null"),
    ],
)
def test_a_refused_hold_names_who_would_be_held_and_a_next_step_that_works(
    other: str, own: str, typed: str
):
    held_flavor = "a: &a\n  config: p/c.yaml\n  conda_env: e\n"
    with pytest.raises(ConfigError, match="'b'") as caught:
        set_hold((held_flavor + other).encode(), "a", "x")
    assert f"give 'b' its own `{typed}`; then" in str(caught.value)
    assert held(set_hold((held_flavor + own).encode(), "a", "x")) == {"a": "x", "b": None}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a:\n  config: p/c\n  # artifact: m\n  hold: x", "a:\n  config: p/c\n  # artifact: m"),
        ("a: {\n  config: p/c, # c\n  hold: x\n}\n", "a: {\n  config: p/c, # c\n  \n}\n"),
        ("a: { # c\n  hold: x,\n  # d\n  config: p/c\n}\n", None),
        ("? a\n: hold: x\n  # c\n  config: p/c\n", None),
        ("a:\n  note: |\n    t\n  hold: x", "a:\n  note: |\n    t\n"),
        ("a:\n  b: c\n  hold: |\n    x\n\n  # c\n", "a:\n  b: c\n\n  # c\n"),
    ],
)
def test_clearing_a_hold_takes_no_comment_but_that_of_its_line(text: str, after: str | None):
    left = clear_hold(text.encode(), "a").decode()
    for comment in re.findall(r"#.*", text):
        assert comment in left
    assert "hold" not in left
    if after is not None:
        assert left == after


@pytest.mark.parametrize("there", ["\n  - x", " [x] # c", "\n    # c\n    x: y"])
def test_a_hold_that_is_a_list_or_a_mapping_is_left_to_its_author(there: str):
    text = f"a:\n  config: p/c.yaml\n  hold:{there}\n# about b\nb: 1\n"
    with pytest.raises(ConfigError, match="a list or a mapping"):
        set_hold(text.encode(), "a", "y")
