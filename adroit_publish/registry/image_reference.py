"""What an image is called: a repository, and in it a tag or a digest.

    host[:port]/path/of/repository:tag          a full reference
    host[:port]/path/of/repository@sha256:hex   one that cannot move
    path/of/repository:tag                      relative to the registry of the target

A tag moves and a digest does not, so they are different types. The first component is a host
where it has a dot, a port, or is ``localhost``; a name without a host is never looked up on
docker.io, because whoever registers a free name there would be trusted.

Source: OCI distribution specification 1.1, "Pulling manifests" (the grammar of names and tags).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adroit_publish.bundle.digest import Digest
from adroit_publish.errors import ConfigError, VerificationError

_HOST = re.compile(r"([A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_NAME_LENGTH = 255


class Tag(str):
    """A name that a repository gives to a manifest, and may give to another one later.

    Raises ConfigError for a text that is none.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Tag:
        if not _TAG.fullmatch(text):
            raise ConfigError(
                "A tag is malformed.",
                got=repr(text[:200]),
                wanted="1 to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'",
            )
        return super().__new__(cls, text)


@dataclass(frozen=True)
class Repository:
    """One repository of one registry; ``host`` may have a port, ``name`` has no leading slash."""

    host: str
    name: str

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ConfigError("A registry's host is malformed.", got=repr(self.host[:200]))
        if not _NAME.fullmatch(self.name) or len(self.name) > _MAX_NAME_LENGTH:
            raise ConfigError(
                "A repository's name is malformed.",
                got=repr(self.name[:200]),
                wanted="lower-case letters and digits, joined by '.', '_', '-' or '/'",
            )

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"


@dataclass(frozen=True)
class ImageReference:
    """One image, as a user names it: by its tag, or by its digest where the user gave that."""

    repository: Repository
    name: Tag | Digest

    def __str__(self) -> str:
        separator = "@" if isinstance(self.name, Digest) else ":"
        return f"{self.repository}{separator}{self.name}"


def parse_reference(text: str, host: str | None = None) -> ImageReference:
    """Returns the image that ``text`` names, by a full reference or one relative to ``host``.

    Raises:
        ConfigError: It is no reference, has neither tag nor digest, or is relative where there
            is nothing it could be relative to.
    """
    named, at, digest = text.partition("@")
    path, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:  # that colon is a port's
        path, tag = named, ""
    first, slash, rest = path.partition("/")
    is_host = "." in first or ":" in first or first == "localhost"
    if not (slash and is_host):
        if host is None:
            raise _no_host(text)
        first, rest = host, path
    try:
        if not (at or tag):
            raise ConfigError("it has no tag; `latest` is never assumed")
        kept = Tag(tag) if tag else None
        return ImageReference(Repository(first, rest), Digest(digest) if at else kept or Tag(tag))
    except (ConfigError, VerificationError) as error:
        raise ConfigError(
            "An image reference is malformed.",
            where=text[:300],
            got=error.got or error.what,
            wanted="[host/]repository:tag or [host/]repository@sha256:<64 hex digits>",
        ) from None


def registry_host(images: str) -> str:
    """Returns the registry of a target's ``images`` (``host[:port]/prefix``)."""
    return images.partition("/")[0]


def _no_host(text: str) -> ConfigError:
    return ConfigError(
        "An image is named without its registry, and the target has none.",
        where=text[:300],
        wanted="host/repository:tag (docker.io is never assumed: there, free names are for taking)",
        next_step=f"write docker.io/library/{text[:300]} if Docker Hub is meant, "
        "or give the target `images`",
    )
