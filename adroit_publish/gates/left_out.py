"""The gate that no file of the checkout is served as an old copy of itself.

A module that was logged with the model and that the checkout has, but does not pack, is served as
it was logged: an edit in the checkout would make nothing stale and change no answer. It is known by
its path from the repository's root; or, where it was logged by a shorter path, by its bytes.

Source: git, "Git Objects" (the id of a blob).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from adroit.serving.own_modules import CODE
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.errors import VerificationError


def check_left_out(
    imports: Imports,
    files: Mapping[str, Readable],
    committed: Mapping[str, str],
    accepted: Collection[str],
) -> tuple[BundleFinding, ...]:
    """Returns the accepted ones of the model's modules that the checkout has and does not pack.

    Args:
        files: The bundle's files by path below ``opt/adroit``.
        committed: Every file of the commit by path, with the id of its blob.
        accepted: Names of findings that are accepted, such as ``module:projects.common.money``.

    Raises:
        VerificationError: Some are not accepted; all of them are in the one message.
    """
    left_out = {
        path: origin
        for path in imports.model
        if path.startswith(CODE)
        and (origin := _origin(path.removeprefix(CODE), files[f"model/{path}"], committed))
    }
    findings = {path: _finding(path, origin) for path, origin in left_out.items()}
    refused = [path for path, finding in findings.items() if finding.name not in accepted]
    if refused:
        directories = sorted({left_out[path].rpartition("/")[0] for path in refused})
        names = ", ".join(findings[path].name for path in refused)
        raise VerificationError(
            "The model imports files of the checkout that the bundle would leave out; edits of "
            "them would change nothing.",
            got="\n".join(findings[path].what for path in refused),
            next_step=(
                f'add them to config.yaml: "source: {{include: [{", ".join(directories)}]}}"; to '
                f'serve the logged copies: "verify: {{accept: [{names}]}}"'
            ),
        )
    return tuple(findings.values())


def _origin(path: str, content: Readable, committed: Mapping[str, str]) -> str | None:
    """Returns the file of the commit that a logged one is a copy of."""
    if "/" in path and path in committed:
        return path
    named_alike = [other for other in committed if f"/{other}".endswith(f"/{path}")]
    if not named_alike or not content.size_bytes:
        return None
    blobs = _blob_ids(content)
    return next((other for other in named_alike if committed[other] in blobs), None)


def _blob_ids(content: Readable) -> set[str]:
    with content.open() as stream:
        data = b"blob %d\0" % content.size_bytes + stream.read()
    return {hashlib.sha1(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest()}


def _finding(path: str, origin: str) -> BundleFinding:
    module = path.removeprefix(CODE).partition(".")[0].replace("/", ".").removesuffix(".__init__")
    return BundleFinding(
        f"module:{module}", f"{origin} is not packed; model/{path} is served instead"
    )
