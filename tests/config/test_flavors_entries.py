"""Entries of flavors.yaml, copied and deleted with every other byte as it was."""

from __future__ import annotations

import pytest

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_entries import copy_flavor, delete_flavor
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
