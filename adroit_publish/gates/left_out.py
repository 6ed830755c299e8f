"""The gate that no file of the checkout is served as an old copy of itself.

A module that was logged with the model and that the checkout has, but does not pack, is served as
it was logged: an edit in the checkout would make nothing stale and change no answer. It is known by
its path from the repository's root; or, where it was logged by a shorter path, by its bytes; or,
where no file has these any more, by that path. By that alone, no file below a config.yaml is
meant: of the model's own project, what is packed is served; another's only has the same name.

Source: git, "Git Objects" (the id of a blob).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from adroit.serving.own_modules import CODE
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.errors import VerificationError

_CONFIG = "/config.yaml"


def check_left_out(
    imports: Imports,
    files: Mapping[str, Readable],
    committed: Mapping[str, str],
    model_name: str,
    accepted: Collection[str],
) -> tuple[BundleFinding, ...]:
    """Returns the accepted ones of the model's modules that the checkout has and does not pack.

    Args:
        files: The bundle's files by path below ``opt/adroit``.
        committed: Every file of the commit by path, with the id of its blob.
        model_name: The model, as the directory of its config.yaml is named.
        accepted: Names of findings that are accepted, such as ``module:projects.common.money``.

    Raises:
        VerificationError: Some are not accepted; all of them are in the one message.
    """
    projects = _projects(committed, model_name)
    left_out = {
        path: origins
        for path in imports.model
        if path.startswith(CODE)
        and (
            origins := _origins(
                path.removeprefix(CODE), files[f"model/{path}"], committed, projects
            )
        )
    }
    findings = {path: _finding(path, origins) for path, origins in left_out.items()}
    refused = [path for path, finding in findings.items() if finding.name not in accepted]
    if refused:
        names = ", ".join(findings[path].name for path in refused)
        raise VerificationError(
            "The model imports files of the checkout that the bundle would leave out; edits of "
            "them would change nothing.",
            got="\n".join(findings[path].what for path in refused),
            next_step=(
                f"{_step(origin for path in refused for origin in left_out[path])}; to "
                f'serve the logged copies: "verify: {{accept: [{names}]}}"'
            ),
        )
    return tuple(findings.values())


def _step(origins: Iterable[str]) -> str:
    directories = sorted({origin.rpartition("/")[0] for origin in origins})
    step = "add what is meant to config.yaml" if directories[0] else "move it out of the root"
    included = ", ".join(directory or "ITS-DIRECTORY" for directory in directories)
    return f'{step}: "source: {{include: [{included}]}}"'


def _projects(committed: Collection[str], model_name: str) -> frozenset[PurePosixPath]:
    """Returns the projects' directories: those below the model's root with no other in them."""
    directories = {PurePosixPath(path).parent for path in committed if path.endswith(_CONFIG)}
    roots = {path.parts[0] for path in directories if path.name == model_name}
    around = {parent for path in directories for parent in path.parents}
    return frozenset(path for path in directories - around if not roots or path.parts[0] in roots)


def _origins(
    path: str,
    content: Readable,
    committed: Mapping[str, str],
    projects: frozenset[PurePosixPath],
) -> tuple[str, ...]:
    """Returns the files of the commit that a logged one is, or may be, a copy of."""
    if "/" in path and path in committed:
        return (path,)
    named_alike = [other for other in committed if f"/{other}".endswith(f"/{path}")]
    if not named_alike or not content.size_bytes:
        return ()
    blobs = _blob_ids(content)
    if same := [other for other in named_alike if committed[other] in blobs]:
        return (same[0],)
    if path == "__init__.py":
        return ()  # every package has one
    return tuple(
        other for other in named_alike if not projects.intersection(PurePosixPath(other).parents)
    )


def _blob_ids(content: Readable) -> set[str]:
    with content.open() as stream:
        data = b"blob %d\0" % content.size_bytes + stream.read()
    return {hashlib.sha1(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest()}


def _finding(path: str, origins: tuple[str, ...]) -> BundleFinding:
    module = path.removeprefix(CODE).partition(".")[0].replace("/", ".").removesuffix(".__init__")
    are = "are" if len(origins) > 1 else "is"
    return BundleFinding(
        f"module:{module}",
        f"{' and '.join(origins)} {are} not packed; model/{path} is served instead",
    )
