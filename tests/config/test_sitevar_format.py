"""The format of adroit_model_versions, and the edit of one model's entry."""

from __future__ import annotations

import json

import pytest

from adroit_publish.config.sitevars import Pointer, parse_sitevar, with_pointer
from adroit_publish.errors import ConfigError

WHERE = "file:/s.json"


def pointer(value):
    return Pointer.of(value)


def test_a_name_and_percents_are_read():
    found = parse_sitevar(b'{"fraud": "v2", "ranking": {"b": 90, "a": 10}}', WHERE)
    assert found["fraud"].flavors == ("v2",)
    assert found["ranking"].weights == (("a", 10.0), ("b", 90.0))
    assert found["ranking"].percent("b") == 90
    assert found["ranking"].percent("c") == 0


def test_pointers_that_route_alike_are_equal():
    assert pointer("a") == pointer({"a": 100}) == pointer({"a": 100.0, "b": 0})
    assert pointer({"a": 99.9999999}) == pointer("a")
    assert pointer({"a": 1, "b": 99}) == pointer({"b": 99.0, "a": 1.0})
    assert pointer({"a": 1, "b": 99}) != pointer({"a": 2, "b": 98})
    assert len({pointer("a"), pointer({"a": 100})}) == 1


def test_percents_of_thirds_add_up():
    assert len(pointer({"a": 33.3, "b": 33.3, "c": 33.4}).flavors) == 3


@pytest.mark.parametrize("value", ["a", {"a": 10, "b": 90}, {"a": 0.5, "b": 99.5}])
def test_what_is_written_is_read_back(value):
    assert parse_sitevar(with_pointer(None, "m", pointer(value), WHERE), WHERE) == {
        "m": pointer(value)
    }
    assert pointer(value).as_json() == value


def test_an_edit_keeps_what_every_other_entry_says_and_writes_one_spelling():
    before = '{"z": {"old": 100, "née": 0},"b":"x", "m": "a"}'.encode()
    after = with_pointer(before, "m", pointer({"a": 90, "b": 10}), WHERE)
    assert json.loads(after) == {
        "b": "x",
        "m": {"a": 90, "b": 10},
        "z": {"old": 100, "née": 0},
    }
    assert after.decode().startswith('{\n  "b": "x",\n  "m": {\n    "a": 90,')
    assert after.endswith(b"\n}\n")
    assert with_pointer(after, "m", pointer({"a": 90, "b": 10}), WHERE) == after


def test_all_problems_are_told_together():
    data = b'{"good": "a", "sum": {"a": 10, "b": 80}, "kind": 7, "list": ["a"], "a b": "x"}'
    with pytest.raises(ConfigError) as caught:
        parse_sitevar(data, WHERE)
    lines = caught.value.what.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(WHERE) for line in lines)
    assert "'sum' has percents that add up to 90" in caught.value.what
    assert "good" not in caught.value.what


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[]", "JSON object"),
        (b'"a"', "JSON object"),
        (b'{"m": "a", "m": "b"}', "'m' twice"),
        (b'{"m": {"a": 100, "a": 0}}', "'a' twice"),
        (b'{"m": {"a": NaN}}', "NaN"),
        (b'{"m": {"a": Infinity}}', "Infinity"),
        (b'{"m": {"a": 1e400}}', "0 to 100"),
        (b'{"m": {"a": -1, "b": 101}}', "0 to 100"),
        (b'{"m": {"a": true, "b": 99}}', "a number"),
        (b'{"m": {"a": "100"}}', "a number"),
        (b'{"m": {"a": {}}}', "a number"),
        (b'{"m": {}}', "must be"),
        (b'{"m": null}', "must be"),
        (b'{"m": ""}', "flavor's name"),
        (b'{"m": "../a"}', "flavor's name"),
        (b'{"m": "a\\ud800"}', "flavor's name"),
        (b'{"": "a"}', "model's name"),
        (b'{"m": "a"', "not JSON"),
        (b'{"m": ' + b"[" * 100_000, "nested"),
        (b'{"m": {"a": ' + b"1" * 5000 + b"}}", "digits"),
        (b'{"m": "a"}' + b" " * (1 << 20), "limit"),
    ],
)
def test_what_is_not_the_format_is_refused_by_reader_and_editor(data, said):
    with pytest.raises(ConfigError, match=said):
        parse_sitevar(data, WHERE)
    with pytest.raises(ConfigError, match=said):
        with_pointer(data, "m", pointer("a"), WHERE)
