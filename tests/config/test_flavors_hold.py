"""``hold: "why"`` in flavors.yaml, set and taken away with every other byte as it was."""

from __future__ import annotations

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
