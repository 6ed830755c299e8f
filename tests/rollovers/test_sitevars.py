"""Sitevars through one suite, wherever they are; and the reader that services use."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adroit.sitevars import Pointer, Sitevar, SitevarError
from adroit.sitevars.split import flavor_of
from adroit_publish.config.targets import Target, parse_targets
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.evidence.sitevars import Seen, Sitevars
from adroit_publish.places import open_store
from adroit_publish.rollovers.sitevars import sitevars_of
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, S3Server, running_moto

A, B = Pointer.of("a"), Pointer.of({"a": 90, "b": 10})


@pytest.fixture(scope="module")
def moto():
    with running_moto() as server:
        yield server


@pytest.fixture(params=["file", "s3", "ssm"])
def target(request, tmp_path: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name, value in {
        "AWS_ENDPOINT_URL": moto.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = moto.new_bucket()
    address = {
        "file": "file:sitevars.json",
        "s3": f"s3://{bucket}/sitevars/adroit_model_versions.json",
        "ssm": f"ssm:/adroit/{tmp_path.name}",
    }[request.param]
    text = f"""
default_target = "t"
[targets.t]
tracking_uri = "sqlite:///m.db"
bundles = "{"file:bundles" if request.param == "file" else f"s3://{bucket}/bundles"}"
sitevars = "{address}"
"""
    return parse_targets(text.encode(), "adroit.toml", str(tmp_path)).by_name["t"]


def opened(target: Target) -> Sitevars:
    return sitevars_of(target, open_store(target))[""]


def test_a_pointer_is_set_read_back_and_remembered(target: Target):
    sitevars = opened(target)
    assert sitevars.get("fraud").pointer is None
    sitevars.set("fraud", A, expected=None, who="jane", why="first")
    sitevars.set("ranking", B, expected=None, who="jane", why="another model")
    sitevars.set("fraud", B, expected=A, who="joe", why="a tenth")
    assert sitevars.get("fraud").pointer == B
    assert sitevars.pointers() == {"fraud": B, "ranking": B}
    changes = [(each.who, each.why, each.before, each.after) for each in sitevars.history("fraud")]
    assert changes == [("jane", "first", None, A), ("joe", "a tenth", A, B)]


def test_who_expects_something_else_is_refused_and_done_already_is_success(target: Target):
    sitevars = opened(target)
    sitevars.set("fraud", A, expected=None, who="jane", why="first")
    with pytest.raises(RefusedError, match="not what was expected"):
        sitevars.set("fraud", Pointer.of("c"), expected=B, who="joe", why="late")
    assert sitevars.get("fraud").pointer == A
    sitevars.set("fraud", A, expected=None, who="jane", why="again")
    assert len(sitevars.history("fraud")) == 1


def test_writers_of_different_models_lose_nothing_and_of_one_model_one_wins(target: Target):
    def set_own(number: int) -> None:
        opened(target).set(f"m{number}", A, expected=None, who="w", why=str(number))

    def race(number: int) -> int:
        try:
            opened(target).set(
                "raced", Pointer.of(f"f{number}"), expected=None, who="w", why=str(number)
            )
        except (RefusedError, StoreError):
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(set_own, range(6)))
        won = sum(pool.map(race, range(6)))
    assert won == 1
    assert set(opened(target).pointers()) == {*(f"m{number}" for number in range(6)), "raced"}


def between(
    monkeypatch: pytest.MonkeyPatch, sitevars: Sitevars, act: Callable[[], object]
) -> list[bool]:
    """Lets ``act`` happen once, after a writer has read and before it writes.

    Returns:
        What each of its writes came to, filled as they are made.
    """
    documents, outcomes = sitevars._documents, list[bool]()
    really = documents.put

    def put(key: str, data: bytes, seen: Seen | None) -> bool:
        if not outcomes:
            act()
        outcomes.append(really(key, data, seen))
        return outcomes[-1]

    monkeypatch.setattr(documents, "put", put)
    return outcomes


@pytest.mark.parametrize("there_before", [True, False])
def test_a_writer_of_another_model_in_between_is_kept(target: Target, there_before, monkeypatch):
    if there_before:
        opened(target).set("old", A, expected=None, who="w", why="x")
    sitevars, other = opened(target), opened(target)
    outcomes = between(
        monkeypatch, sitevars, lambda: other.set("ranking", B, expected=None, who="w", why="x")
    )
    sitevars.set("fraud", A, expected=None, who="jane", why="x")
    assert outcomes == ([True] if str(target.sitevars).startswith("ssm:") else [False, True])
    before = {"old": A} if there_before else {}
    assert opened(target).pointers() == {"fraud": A, "ranking": B, **before}


@pytest.mark.parametrize("before", [None, A])
def test_a_writer_of_the_same_model_in_between_wins(target: Target, before, monkeypatch):
    if before:
        opened(target).set("fraud", before, expected=None, who="w", why="x")
    sitevars, other = opened(target), opened(target)
    outcomes = between(
        monkeypatch, sitevars, lambda: other.set("fraud", B, expected=before, who="joe", why="x")
    )
    with pytest.raises(RefusedError, match="not what was expected"):
        sitevars.set("fraud", Pointer.of("c"), expected=before, who="jane", why="x")
    assert outcomes == [False]
    assert opened(target).get("fraud").pointer == B
    assert [each.who for each in opened(target).history("fraud")][-1] == "joe"


def test_a_first_change_that_was_cut_off_is_recorded_by_the_same_command(target, monkeypatch):
    sitevars = opened(target)
    monkeypatch.setattr(sitevars._kept, "put", lambda *_: False)
    with pytest.raises(StoreError, match="not recorded"):
        sitevars.set("fraud", A, expected=None, who="jane", why="first")
    there = opened(target).get("fraud").pointer
    assert there == A
    opened(target).set("fraud", A, expected=there, who="jane", why="first")
    (change,) = opened(target).history("fraud")
    assert (change.before, change.after) == (None, A)


def test_a_service_reads_what_was_set(target: Target):
    opened(target).set("fraud", B, expected=None, who="jane", why="first")
    live = Sitevar(str(target.sitevars))
    assert live.pointer("fraud") == B
    assert live.flavor("fraud", "somebody") in ("a", "b")
    with pytest.raises(SitevarError, match="no entry for 'nope'"):
        live.pointer("nope")


def test_what_is_no_sitevar_is_left_as_it_is(tmp_path: Path):
    path = tmp_path / "sitevars.json"
    path.write_text('{"fraud": {"a": 60, "b": 60}}')
    lines = ('tracking_uri = "sqlite:///m.db"', 'bundles = "file:b"', f'sitevars = "file:{path}"')
    text = "\n".join(['default_target = "t"', "[targets.t]", *lines])
    target = parse_targets(text.encode(), "adroit.toml", str(tmp_path)).by_name["t"]
    with pytest.raises(ConfigError):
        opened(target).set("fraud", A, expected=None, who="jane", why="x")
    assert path.read_text() == '{"fraud": {"a": 60, "b": 60}}'


# The reader


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refreshed(live: Sitevar, clock: Clock) -> None:
    """Makes the value old, asks, and waits for the refresh that this starts."""
    clock.now_s += 31
    live.pointer("fraud")
    thread = live._refreshing
    assert isinstance(thread, threading.Thread)
    thread.join(30)


def test_the_last_good_value_stays_while_the_source_is_away_or_damaged(tmp_path: Path):
    path, clock = tmp_path / "s.json", Clock()
    path.write_text(json.dumps({"fraud": "a", "ranking": "r"}))
    live = Sitevar(f"file:{path}", refresh_s=30, clock=clock)
    assert live.pointer("fraud") == A
    path.write_text(json.dumps({"fraud": "b", "ranking": "r"}))
    assert live.pointer("fraud") == A  # from memory
    refreshed(live, clock)
    assert live.pointer("fraud") == Pointer.of("b")
    for damage in (None, b"{", b"[]", json.dumps({"fraud": {"a": 3}, "ranking": "s"}).encode()):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        refreshed(live, clock)
        assert live.pointer("fraud") == Pointer.of("b")
        assert live.error
    assert live.pointer("ranking") == Pointer.of("s")  # what is not damaged is taken
    path.write_text(json.dumps({"fraud": "a"}))
    refreshed(live, clock)
    assert (live.pointer("fraud"), live.error) == (A, None)


def test_a_source_that_was_never_there_is_an_error_that_says_why(tmp_path: Path):
    with pytest.raises(SitevarError, match="FileNotFoundError"):
        Sitevar(f"file:{tmp_path}/none.json").flavor("fraud", "k")
    with pytest.raises(ValueError, match="file:PATH"):
        Sitevar("http://example.com")


def test_each_reader_asks_where_the_environment_pointed_when_it_was_made(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SitevarError, match="cannot be read"):
        Sitevar("ssm:/adroit/readers").pointer("fraud")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    with pytest.raises(SitevarError, match="no entry for 'fraud'"):
        Sitevar("ssm:/adroit/readers").pointer("fraud")


def test_a_file_needs_no_boto3(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text('{"fraud": "a"}')
    code = (
        "import sys; from adroit.sitevars import Sitevar;"
        f"assert Sitevar('file:{path}').flavor('fraud', 'k') == 'a';"
        "assert not {'boto3', 'botocore', 'adroit_publish'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_example_of_the_guide_runs(tmp_path: Path):
    guide = (Path(__file__).parents[2] / "docs/sitevars.md").read_text()
    document = guide.split("```json\n")[1].split("```")[0]
    example = guide.split("```python\n")[1].split("```")[0]
    path = tmp_path / "adroit_model_versions.json"
    path.write_text(document)
    found: dict[str, object] = {}
    exec(example.replace("/etc/adroit/adroit_model_versions.json", str(path)), found)
    assert found["flavor"] in ("ranking_v1", "ranking_v2")


# The split


def shares(pointer: Pointer, keys: int = 100_000) -> dict[str, float]:
    counted = Counter(flavor_of(pointer, f"user-{number}") for number in range(keys))
    return {flavor: 100 * count / keys for flavor, count in counted.items()}


@pytest.mark.parametrize(
    "weights",
    [{"a": 99, "b": 1}, {"a": 90, "b": 10}, {"a": 50, "b": 50}, {"a": 20, "b": 30, "c": 50}],
)
def test_the_split_is_within_1_percent_over_100000_keys(weights):
    found = shares(Pointer.of(weights))
    assert found.keys() == weights.keys()
    for flavor, percent in weights.items():
        assert abs(found[flavor] - percent) < 1


def test_a_key_keeps_its_flavor_while_the_new_ones_weight_only_grows():
    keys = [f"user-{number}" for number in range(20_000)]
    moved: set[str] = set()
    for percent in (1, 10, 50, 99, 100):
        weights = {"new": percent} | ({"old": 100 - percent} if percent < 100 else {})
        on_new = {key for key in keys if flavor_of(Pointer.of(weights), key) == "new"}
        assert moved <= on_new
        moved = on_new
    assert len(moved) == len(keys)


def test_a_key_gets_the_same_flavor_everywhere():
    code = (
        "from adroit.sitevars.split import flavor_of; from adroit.sitevars import Pointer;"
        "p = Pointer.of({'a': 40, 'b': 60}); print(*(flavor_of(p, str(n)) for n in range(200)))"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed}, cwd=root, check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = Pointer.of({"b": 60, "a": 40})
    assert found == {" ".join(flavor_of(here, str(number)) for number in range(200)) + "\n"}
