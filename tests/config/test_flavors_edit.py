from __future__ import annotations

from pathlib import Path

import pytest

from adroit_publish.config.flavors_edit import set_version, version_line
from adroit_publish.errors import ConfigError, RefusedError

OLD = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"
NEW = "v5f2b9c01-3f0c9a1b2c3d"
HEAD = "f:\n  config: projects/m/config.yaml\n  conda_env: s\n"
SAMPLES = Path(__file__).parent / "samples" / "yaml"


def edited(before: str, *, expected: str | None, new: str = NEW) -> str:
    return set_version(before.encode(), "f", new, expected=expected).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"  version: {OLD} # c", f"  version: {NEW} # c"),
        (f"  version: '{OLD}'\n", f"  version: '{NEW}'\n"),
        (f'  version: "{OLD}"  # c\n', f'  version: "{NEW}"  # c\n'),
        (f"  'version' :   {OLD}\n", f"  'version' :   {NEW}\n"),
        (f"  version: # c\n\n      {OLD}\n", f"  version: # c\n\n      {NEW}\n"),
        (f"  version: &v {OLD}\n", f"  version: &v {NEW}\n"),
        (f"  version: &v # &c\n    !!str {OLD}\n", f"  version: &v # &c\n    !!str {NEW}\n"),
        (f"  version: |  # c\n    {OLD}\n\n  # d\n", f"  version: {NEW}  # c\n\n  # d\n"),
        (f"  version: >+\n    {OLD}\n\n  a: b\n", f"  version: {NEW}\n\n  a: b\n"),
        (f"  ? version # c\n  : {OLD}\n", f"  ? version # c\n  : {NEW}\n"),
        (f"  version: {OLD}\n---", None),
    ],
)
def test_an_existing_scalar_is_replaced_and_nothing_else(before: str, after: str | None) -> None:
    if after is None:
        with pytest.raises(ConfigError, match="second document"):
            edited(HEAD + before, expected=OLD)
    else:
        assert edited(HEAD + before, expected=OLD) == HEAD + after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  version:\n", f"  version: {NEW}\n"),
        ("  version:   # c\n  a: b\n", f"  version: {NEW}   # c\n  a: b\n"),
        ("  version: ~\n", f"  version: {NEW}\n"),
        ("  version: NULL # c", f"  version: {NEW} # c"),
        ("  version: ''\n", f"  version: '{NEW}'\n"),
        ("  version: &v\n", f"  version: &v {NEW}\n"),
        ("  version: !!str # c\n", f"  version: !!str {NEW} # c\n"),
        ("  ? version\n  :\n", f"  ? version\n  : {NEW}\n"),
        ("", f"  version: {NEW}\n"),
        ("  # c\ng: 1\n", f"  version: {NEW}\n  # c\ng: 1\n"),
        ("  a: |+\n    b\n\n\ng: 1\n", f"  a: |+\n    b\n\n\n  version: {NEW}\ng: 1\n"),
        ("  a:\n  - b\n  -   c: d\n# e]\n", f"  a:\n  - b\n  -   c: d\n  version: {NEW}\n# e]\n"),
        ("  a: 'b\n\n   c' # d\n", f"  a: 'b\n\n   c' # d\n  version: {NEW}\n"),
        ("  a:\n    ? b\n", f"  a:\n    ? b\n  version: {NEW}\n"),
        ("  a: [\n    b ]", f"  a: [\n    b ]\n  version: {NEW}"),
    ],
)
def test_a_version_that_is_not_there_is_added(before: str, after: str) -> None:
    assert edited(HEAD + before, expected=None) == HEAD + after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f: {}\n", f"f: {{version: {NEW}}}\n"),
        ("f: {a: b, c: d, } # e\n", f"f: {{a: b, c: d, version: {NEW}, }} # e\n"),
        ("f: {\n  a: b # c\n}\n", f"f: {{\n  a: b, version: {NEW} # c\n}}\n"),
        ("{f: {a: b}}", f"{{f: {{a: b, version: {NEW}}}}}"),
        ("x-d: &d {a: b}\nf: *d # c\n", f"x-d: &d {{a: b}}\nf: {{<<: *d, version: {NEW}}} # c\n"),
        ("? f\n: a: b\n  c: d\n", f"? f\n: a: b\n  c: d\n  version: {NEW}\n"),
        ("f:\n  ? a\n  : b\n", f"f:\n  ? a\n  : b\n  version: {NEW}\n"),
        ("x-d: &d {a: b}\nf:\n    <<: *d", f"x-d: &d {{a: b}}\nf:\n    <<: *d\n    version: {NEW}"),
    ],
)
def test_flow_mappings_aliases_and_merges_get_a_version_of_their_own(
    before: str, after: str
) -> None:
    assert edited(before, expected=None) == after


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_a_byte_order_mark_stay(eol: str, mark: str) -> None:
    before = mark + (HEAD + "  # ü 漢 🎉\ng: 1\n").replace("\n", eol)
    after = mark + (HEAD + f"  version: {NEW}\n  # ü 漢 🎉\ng: 1\n").replace("\n", eol)
    assert edited(before, expected=None) == after


def test_a_block_scalar_that_ends_the_file_without_a_line_break_keeps_its_value() -> None:
    before = "f:\n  a: b # c\n  d:\n  - |\n    e"
    after = f"f:\n  version: {NEW}\n  a: b # c\n  d:\n  - |\n    e"
    assert edited(before, expected=None) == after


def test_what_a_reader_could_take_for_a_number_is_quoted() -> None:
    for new in ("1" * 32, "0" * 32, "1234567e" + "1" * 24, "0b" + "01" * 15):
        assert edited(HEAD, expected=None, new=new).endswith(f'  version: "{new}"\n')
    for new in (NEW, OLD, "e" + "1" * 31, "1e2e" + "1" * 28, "0b2" + "1" * 29):
        assert edited(HEAD, expected=None, new=new).endswith(f"  version: {new}\n")


@pytest.mark.parametrize("name", ["comments", "inherited"])
def test_sample_files_change_in_one_place(name: str) -> None:
    before = (SAMPLES / f"{name}.before.yaml").read_bytes()
    after = (SAMPLES / f"{name}.after.yaml").read_bytes()
    assert set_version(before, "my_flavor", NEW, expected=OLD) == after


def test_a_version_of_another_writer_is_refused_with_both_values() -> None:
    other = "f" * 32
    with pytest.raises(RefusedError) as caught:
        edited(HEAD + f"  version: {other}\n", expected=OLD)
    error = caught.value
    assert (error.got, error.wanted, error.where) == (other, OLD, "flavors.yaml:1")
    with pytest.raises(RefusedError, match="no version"):
        edited(HEAD, expected=OLD)


def test_a_version_that_is_there_already_changes_nothing() -> None:
    data = (HEAD + f"  version: |\n    {NEW}\n").encode()
    assert set_version(data, "f", NEW, expected=OLD) is data


def test_an_edit_that_would_change_another_flavor_is_refused() -> None:
    shared = f"a: &a\n  version: &v {OLD}\n"
    for other in ("b: *a\n", "b:\n  <<: *a\n", "b:\n  version: *v\n", "x-b: *v\n"):
        with pytest.raises(ConfigError, match="without changing"):
            set_version((shared + other).encode(), "a", NEW, expected=OLD)
    own = shared + f"b:\n  <<: *a\n  version: {'1' * 31}f\n"
    assert set_version(own.encode(), "a", NEW, expected=OLD).decode() == own.replace(OLD, NEW)


def test_taking_a_version_by_alias_ends_the_sharing() -> None:
    text = f"a:\n  version: &v {OLD}\nf:\n  version: *v  # c\n"
    assert edited(text, expected=OLD) == f"a:\n  version: &v {OLD}\nf:\n  version: {NEW}  # c\n"


@pytest.mark.parametrize(
    "text",
    [
        "g: {a: b}\n",
        "f:\n",
        "f: text\n",
        "- f\n",
        HEAD + "  version: [a]\n",
        HEAD + "  ? version\n",
        "f: {a: b, version}\n",
        "x-all: &all\n  f: {a: b}\n<<: *all\n",
        "f:\n  ? a\n  : ? b\n    : c\n  ? - d\n  : e\n",
    ],
)
def test_an_edit_that_cannot_be_made_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"flavors\.yaml"):
        edited(text, expected=None)


def test_only_versions_are_written() -> None:
    for wrong in ("", "latest", OLD + "\n", "x: y"):
        with pytest.raises(ValueError, match="not a version"):
            edited(HEAD, expected=None, new=wrong)


def test_the_line_of_the_version_is_found() -> None:
    assert version_line(b"g: 1\r\nf:\r\n  version: a # c\r\n", "f") == (3, "  version: a # c")
    assert version_line(b"f:\n  version: &v\n    'a'\n", "f") == (3, "    'a'")
    assert version_line(b"x: &v a\nf:\n  version: *v", "f") == (3, "  version: *v")
    assert version_line(b"f:\n  version:\n\n  a: b\n", "f") == (2, "  version:")
    assert version_line(b"\n\nf:\n  config: a\n", "f") == (3, "f:")
