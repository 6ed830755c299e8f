from __future__ import annotations

import pytest

from adroit_publish.config.flavors import (
    find_flavor,
    parse_flavors,
)
from adroit_publish.config.names import near_miss
from adroit_publish.errors import ConfigError

RUN = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"
BODY = "  config: projects/m/config.yaml\n  conda_env: sklearn\n"


def version_of(written: str) -> str | None:
    return parse_flavors(f"f:\n{BODY}  version: {written}\n".encode())["f"].version


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_flavors(text.encode())
    return str(caught.value).splitlines()


def test_a_flavor_is_read_with_its_line() -> None:
    text = f"# head\n\nf:\n{BODY}  version: {RUN}  # c\n  artifact: model\n  owner: me\n"
    flavor = parse_flavors(text.encode())["f"]
    assert (flavor.config, flavor.conda_env) == ("projects/m/config.yaml", "sklearn")
    assert (flavor.version, flavor.artifact, flavor.hold, flavor.line) == (RUN, "model", None, 3)


@pytest.mark.parametrize("written", ["", "~", "null", "''", '""', "# nothing"])
def test_a_version_that_is_not_written_is_none(written: str) -> None:
    assert version_of(written) is None


@pytest.mark.parametrize(
    "run_id", ["1" * 32, "0" * 32, "1234567e901234567890123456789012", "0b" + "01" * 15]
)
def test_an_unquoted_run_id_that_yaml_reads_as_a_number_is_what_it_spells(run_id: str) -> None:
    assert version_of(run_id) == run_id


@pytest.mark.parametrize(
    "written", [f"|\n    {RUN}", f">-\n    {RUN}", f"!!str {RUN}", f"&a {RUN}"]
)
def test_a_version_may_be_written_in_any_style(written: str) -> None:
    assert version_of(written) == RUN


@pytest.mark.parametrize("written", ["1.10", "5", "1e5", "true"])
def test_a_version_that_yaml_reads_as_a_number_says_quote_it(written: str) -> None:
    (problem,) = problems_of(f"f:\n{BODY}  version: {written}\n")
    assert problem.startswith("flavors.yaml:4: ")
    assert repr(written) in problem
    assert "quote it" in problem


@pytest.mark.parametrize("written", ["latest", RUN.upper(), RUN[:-1], "v5f2b9c01", f"'{RUN} '"])
def test_a_version_that_is_none_says_what_is_allowed(written: str) -> None:
    (problem,) = problems_of(f"f:\n{BODY}  version: {written}\n")
    assert "32 lower-case hex digits" in problem
    assert "quote it" not in problem


def test_anchors_aliases_merges_and_foreign_keys_work() -> None:
    text = f"""
x-base: &base
  conda_env: sklearn
  version: &v {RUN}
a: &a
  <<: *base
  config: projects/a/config.yaml
b:
  <<: [{{conda_env: torch}}, *base]
  config: projects/b/config.yaml
  team: {{name: x, conda-en: deep keys are not looked at}}
c: *a
d: {{config: projects/d/config.yaml, conda_env: e, version: *v}}
"""
    flavors = parse_flavors(text.encode())
    assert list(flavors) == ["a", "b", "c", "d"]
    assert [flavor.version for flavor in flavors.values()] == [RUN] * 4
    assert flavors["b"].conda_env == "torch"
    assert flavors["c"].config == "projects/a/config.yaml"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff", "{}", "null\n"])
def test_a_file_without_flavors_is_empty(text: str) -> None:
    assert parse_flavors(text.encode()) == {}


def test_all_problems_are_reported_together_in_the_order_of_the_file() -> None:
    text = (
        f"a:\n  config: ../x/config.yaml\n  verison: {RUN}\n"
        "b: [1]\n"
        "'c/d':\n  config: projects/c/config.yaml\n  conda_env: 5\n  version: {}\n"
        "e:\n"
    )
    problems = problems_of(text)
    assert [int(problem.split(":")[1]) for problem in problems] == [1, 2, 3, 4, 5, 7, 8, 9]
    assert "is 'version' meant?" in problems[2]


def test_a_file_whose_syntax_is_wrong_names_the_line() -> None:
    assert problems_of("f:\n  config: a: b\n")[0].startswith("flavors.yaml:2: not valid YAML")


@pytest.mark.parametrize(
    ("written", "hold"),
    [("", None), ("false", None), ("true", "held"), ("waits for #12", "waits for")],
)
def test_a_hold_is_its_reason(written: str, hold: str | None) -> None:
    assert parse_flavors(f"f:\n{BODY}  hold: {written}\n".encode())["f"].hold == hold


@pytest.mark.parametrize("key", ["verison", "versions", "vresion", "Version", "conda-env", "hodl"])
def test_a_slip_of_a_known_key_is_an_error(key: str) -> None:
    assert f"{key!r}" in problems_of(f"f:\n{BODY}  {key}: x\n")[0]


@pytest.mark.parametrize("key", ["owner", "tags", "hosts", "host", "team", "x-verison", "env", "ü"])
def test_a_foreign_key_is_left_alone(key: str) -> None:
    assert near_miss(key, ("config", "conda_env", "version", "artifact", "hold")) is None
    assert parse_flavors(f"f:\n{BODY}  {key}: x\n".encode())["f"].name == "f"


def test_an_unknown_flavor_names_the_nearest() -> None:
    flavors = parse_flavors(f"my_flavor:\n{BODY}other:\n{BODY}".encode())
    assert find_flavor(flavors, "other").name == "other"
    with pytest.raises(ConfigError, match="my_flavor") as caught:
        find_flavor(flavors, "my_flavour")
    assert "other" not in str(caught.value.wanted)
