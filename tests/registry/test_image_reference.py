from __future__ import annotations

import pytest

from adroit_publish.bundle.digest import Digest
from adroit_publish.errors import ConfigError
from adroit_publish.registry.image_reference import (
    ImageReference,
    Repository,
    Tag,
    parse_reference,
    registry_host,
)

HOST = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "host", "name", "tag"),
    [
        ("adroit-env/sklearn:2026.11", HOST, "adroit-env/sklearn", "2026.11"),
        ("sklearn:1", HOST, "sklearn", "1"),
        ("ghcr.io/org/env:1", "ghcr.io", "org/env", "1"),
        ("localhost/env:1", "localhost", "env", "1"),
        ("127.0.0.1:5000/a/b:v_1.2-x", "127.0.0.1:5000", "a/b", "v_1.2-x"),
        ("reg:5000/a:1", "reg:5000", "a", "1"),
        ("[::1]:5000/a:1", "[::1]:5000", "a", "1"),
        (f"a/b@{DIGEST}", HOST, "a/b", DIGEST),
        (f"ghcr.io/a/b:1@{DIGEST}", "ghcr.io", "a/b", DIGEST),
    ],
)
def test_references_are_read_as_everywhere(text, host, name, tag):
    found = parse_reference(text, HOST)
    assert found.repository == Repository(host, name)
    assert found.name == tag
    assert type(found.name) is (Digest if tag == DIGEST else Tag)
    assert parse_reference(str(found), "other.example") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sklearn",
        "Upper/case:1",
        "a b:1",
        "a//b:1",
        "../a:1",
        "a:",
        "a:-1",
        "a:" + "x" * 129,
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        f"a:b c@{DIGEST}",
        "ghcr.io/:1",
        "https://ghcr.io/a:1",
        "user@ghcr.io/a:1",
        "a/b\n:1",
        "a/" * 200 + "b:1",
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ConfigError, match="malformed"):
        parse_reference(text, HOST)


def test_a_short_name_without_a_registry_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"docker\.io is never assumed"):
        parse_reference("python:3.11")


def test_a_tag_and_a_digest_are_different_things():
    repository = Repository("h.example", "a")
    assert str(ImageReference(repository, Tag("x"))) == "h.example/a:x"
    assert str(ImageReference(repository, Digest(DIGEST))) == f"h.example/a@{DIGEST}"


def test_the_registry_of_a_target_is_its_first_part():
    assert registry_host(f"{HOST}/adroit") == HOST
    assert registry_host("127.0.0.1:5000") == "127.0.0.1:5000"
