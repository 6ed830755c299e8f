"""Entries of flavors.yaml, copied and deleted with every other byte as it was."""

from __future__ import annotations

import pytest

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_entries import add_flavor, copy_flavor, delete_flavor
from adroit_publish.errors import ConfigError, RefusedError

OLD, NEW = "v5f2b9c01-3f0c9a1b2c3d", "v5f2b9c01-aaaaaaaaaaaa"
FILE = f"""# The heading of the file.

# What serves the feed.
feed: &feed
  config: projects/feed/config.yaml   # a path
  conda_env: "sklearn"
  version: {OLD}    # published
  # artifact: model

# Search has its own.
search:
  <<: *feed
  config: projects/search/config.yaml
"""


def test_a_copy_stands_under_the_old_one_with_its_comments_and_without_its_anchor():
    copied = copy_flavor(FILE.encode(), "feed", "feed_2", NEW, expected=OLD).decode()
    added = f"""# What serves the feed.
feed_2:
  config: projects/feed/config.yaml   # a path
  conda_env: "sklearn"
  version: {NEW}    # published
  # artifact: model

"""
    assert copied == FILE.replace("# Search", f"{added}# Search")
    flavors = parse_flavors(copied.encode())
    assert flavors["search"].version == flavors["feed"].version == OLD


def test_a_copy_of_what_is_merged_gets_a_version_of_its_own():
    copied = copy_flavor(FILE.encode(), "search", "search_2", NEW, expected=OLD).decode()
    assert copied == FILE + (
        f"\n# Search has its own.\nsearch_2:\n  <<: *feed\n"
        f"  config: projects/search/config.yaml\n  version: {NEW}\n"
    )


def test_a_copy_made_again_changes_nothing():
    once = copy_flavor(FILE.encode(), "feed", "feed_2", NEW, expected=OLD)
    assert copy_flavor(once, "feed", "feed_2", NEW, expected=OLD) == once


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end\n"])
def test_a_copy_then_deleted_leaves_the_file_as_it_was(eol: str, end: str):
    text = (FILE.rstrip("\n") + end).replace("\n", eol).encode()
    for flavor in ("feed", "search"):
        copied = copy_flavor(text, flavor, "copy", NEW, expected=OLD)
        assert list(parse_flavors(copied)) == (
            ["feed", "copy", "search"] if flavor == "feed" else ["feed", "search", "copy"]
        )
        left = delete_flavor(copied, "copy", expected=NEW)
        assert left == text or (not end and left == text + eol.encode())


def test_a_deletion_takes_the_comments_of_the_entry_and_nothing_else():
    left = delete_flavor(FILE.encode(), "search", expected=OLD).decode()
    assert left == FILE[: FILE.index("\n# Search")]


def test_what_is_not_there_is_deleted_already():
    assert delete_flavor(FILE.encode(), "gone", expected=OLD) == FILE.encode()


def test_the_heading_of_the_file_is_no_comment_of_its_first_flavor():
    b = "b: {config: c, conda_env: e}\n"
    text = f"# Heading.\na: {{config: c, conda_env: e, version: {OLD}}}\n{b}"
    assert delete_flavor(text.encode(), "a", expected=OLD).decode() == f"# Heading.\n{b}"


def test_the_only_flavor_can_go():
    text = f"# Heading.\n\na:\n  config: c\n  conda_env: e\n  version: {OLD}\n"
    assert delete_flavor(text.encode(), "a", expected=OLD).decode() == "# Heading.\n"


def test_a_flavor_that_others_take_values_from_is_not_deleted():
    with pytest.raises(ConfigError, match="feed"):
        delete_flavor(FILE.encode(), "feed", expected=OLD)


def test_another_writers_version_is_neither_copied_nor_deleted():
    with pytest.raises(RefusedError):
        delete_flavor(FILE.encode(), "search", expected=NEW)
    with pytest.raises(RefusedError):
        copy_flavor(FILE.encode(), "feed", "feed_2", NEW, expected=None)
    with pytest.raises(RefusedError):
        copy_flavor(FILE.encode(), "feed", "search", NEW, expected=OLD)


@pytest.mark.parametrize("name", ["../x", "", "a b", "x\n"])
def test_a_copy_needs_a_name(name: str):
    with pytest.raises(ConfigError):
        copy_flavor(FILE.encode(), "feed", name, NEW, expected=OLD)


def test_entries_on_one_line_are_left_to_their_author():
    text = f"{{a: {{config: c, conda_env: e, version: {OLD}}}, b: {{config: c, conda_env: e}}}}\n"
    with pytest.raises(ConfigError, match="line of its own"):
        delete_flavor(text.encode(), "a", expected=OLD)


FLAVOR = f"  config: projects/feed/config.yaml\n  conda_env: e\n  version: {OLD}\n"


def deleted(text: str, flavor: str, version: str | None = OLD) -> str:
    return delete_flavor(text.encode(), flavor, expected=version).decode()


def copied(text: str, flavor: str = "a") -> str:
    return copy_flavor(text.encode(), flavor, "copy", NEW, expected=OLD).decode()


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("comment", ["  # artifact: model\n", " # a\n   # b\n", "    # - deep\n"])
def test_a_deeper_comment_belongs_to_the_flavor_above(eol: str, comment: str):
    feed, ads = f"feed:\n{FLAVOR}{comment}", f"# Ads.\nads:\n{FLAVOR}"
    for gap in ("", "\n"):
        text = (feed + gap + ads).replace("\n", eol)
        assert deleted(text, "ads") == feed.replace("\n", eol)
        assert deleted(text, "feed") == ads.replace("\n", eol)
        both = copied(text, "ads")
        assert both.count(comment.replace("\n", eol)) == 1
        assert copied(text, "feed").count(comment.replace("\n", eol)) == 2


def test_a_deeper_comment_below_an_empty_line_goes_with_its_flavor():
    feed = f"feed:\n{FLAVOR}\n  # artifact: model\n"
    ads = f"ads:\n{FLAVOR}"
    assert deleted(feed + ads, "feed") == ads
    assert deleted(feed + "\n" + ads, "ads") == feed


def test_a_comment_between_a_deeper_one_and_the_key_is_told_by_its_indent():
    feed = f"feed:\n{FLAVOR}"
    text = f"{feed}# of ads\n  # deeper\nads:\n{FLAVOR}"
    assert deleted(text, "ads") == f"{feed}# of ads\n  # deeper\n"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "...\n", "# the end\n", "\n"])
@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
def test_the_only_flavor_of_a_file_with_document_marks_can_go(mark: str, end: str, eol: str):
    text = f"{mark}---\n# Heading.\n\na:\n{FLAVOR}{end}".replace("\n", eol)
    left = deleted(text, "a")
    gap = "\n" if end.strip() else ""  # of the empty lines, those after an entry go with it
    assert left == f"{mark}---\n# Heading.\n{gap}{end}".replace("\n", eol)
    assert parse_flavors(left.encode()) == {}
    if end == "...\n":  # without a mark at its start, too
        left = deleted(text.replace("---" + eol, ""), "a")
        assert left == f"{mark}# Heading.\n\n...\n".replace("\n", eol)
        assert parse_flavors(left.encode()) == {}
        with pytest.raises(ConfigError):
            parse_flavors(left.encode() + b"a: 1")


def test_the_heading_below_a_document_mark_is_the_files():
    text = f"---\n# Heading.\na:\n{FLAVOR}b:\n{FLAVOR}"
    assert deleted(text, "a") == f"---\n# Heading.\nb:\n{FLAVOR}"
    assert copied(text).count("Heading") == 1


@pytest.mark.parametrize("scalar", ["|+\n    text\n\n", ">+\n    text\n\n\n", "|\n    text\n\n"])
def test_empty_lines_that_are_part_of_a_block_scalar_stay(scalar: str):
    feed = f"feed:\n{FLAVOR}  note: {scalar}"
    text = f"{feed}ads:\n{FLAVOR}"
    before = parse_flavors(text.encode())
    assert parse_flavors(deleted(text, "ads").encode()) == {"feed": before["feed"]}
    if "+" in scalar:
        assert deleted(text, "ads") == feed
    last = f"x-a: 1\n\n{feed}"
    both = copied(last, "feed")
    assert both.startswith(last)
    assert set(parse_flavors(both.encode())) == {"feed", "copy"}


@pytest.mark.parametrize(
    ("entry", "users"),
    [
        ("b:\n  <<: *a\n", "'b'"),
        ("b: *a\n", "'b'"),
        ("x-b: [*a]\nc: {k: *v}\n", "'x-b', 'c'"),
        ("b:\n  version: *v\n", "'b'"),
    ],
)
def test_a_deletion_names_those_that_take_values_from_the_flavor(entry: str, users: str):
    text = f"a: &a\n  config: p/c.yaml\n  conda_env: e\n  version: &v {OLD}\n{entry}"
    with pytest.raises(ConfigError, match="anchor") as caught:
        deleted(text, "a")
    assert users in str(caught.value)


def test_an_anchor_that_is_set_again_is_not_rebound_by_a_deletion():
    text = f"a: &d\n{FLAVOR}b: &d\n{FLAVOR}c:\n  <<: *d\n"
    assert deleted(text, "a") == text[text.index("b:") :]
    with pytest.raises(ConfigError, match="'c'"):
        deleted(text, "b")


def test_a_copy_of_what_ends_the_file_in_an_open_block_scalar_says_why_not():
    with pytest.raises(ConfigError, match="line break at the end of the file"):
        copied(f"a:\n{FLAVOR}  note: |\n    text")
    for scalar in ("|-\n    text", "'text'", "[\n    text ]"):
        text = f"a:\n{FLAVOR}  note: {scalar}"
        assert copied(text).startswith(text + "\n")


def test_entries_of_one_flow_mapping_say_so():
    text = f"{{\na: {{config: p/c.yaml, conda_env: e, version: {OLD}}}\n}}\n"
    with pytest.raises(ConfigError, match=r"\{ \.\.\. \}"):
        deleted(text, "a")


FIELDS = {"config": "projects/new/config.yaml", "conda_env": "plain", "version": ""}


@pytest.mark.parametrize(
    ("before", "added"),
    [
        (
            "a:\n  config: x/c.yaml\n  conda_env: plain\n",
            "\nnew:\n  config: projects/new/config.yaml\n  conda_env: plain\n  version:\n",
        ),
        (
            "a:\r\n    config: x/c.yaml\r\n    conda_env: plain",
            "\r\n\r\nnew:\r\n    config: projects/new/config.yaml\r\n    conda_env: plain\r\n"
            "    version:\r\n",
        ),
        (
            "a: {config: x/c.yaml, conda_env: plain}\n\n",
            "new:\n  config: projects/new/config.yaml\n  conda_env: plain\n  version:\n",
        ),
        (
            "# nothing yet\n",
            "\nnew:\n  config: projects/new/config.yaml\n  conda_env: plain\n  version:\n",
        ),
        ("", "new:\n  config: projects/new/config.yaml\n  conda_env: plain\n  version:\n"),
    ],
    ids=["block", "CRLF, four spaces, no line break", "braces", "comments alone", "empty"],
)
def test_a_new_flavor_is_added_in_the_files_own_style(before, added):
    assert add_flavor(before.encode(), "new", FIELDS).decode() == before + added


@pytest.mark.parametrize(
    "text",
    [
        "{a: {config: x/c.yaml, conda_env: plain}}\n",
        "a:\n  config: x/c.yaml\n  conda_env: plain\n...\n",
        "a:\n  config: x/c.yaml\n  conda_env: |+\n    plain",
    ],
    ids=["one mapping in braces", "an end of the document", "a value that keeps its line breaks"],
)
def test_a_new_flavor_that_would_change_another_value_is_refused(text):
    with pytest.raises(ConfigError, match="by hand"):
        add_flavor(text.encode(), "new", FIELDS)


def test_a_flavor_that_is_there_is_not_added_again():
    with pytest.raises(RefusedError):
        add_flavor(b"new:\n  config: x/c.yaml\n  conda_env: plain\n", "new", FIELDS)
