"""The gate over a bundle's files: what looks like a secret is refused, or waived by its digest.

A file is looked at by its name, then as text; of a binary one (a pickle that holds a token) only
what is a secret by its own form is found. Of a large file the beginning is looked at, and a
finding says so. The secret itself is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from adroit_publish.bundle.content import Concatenation, Readable
from adroit_publish.bundle.digest import sha256_of
from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.config.file_names import secret_kind
from adroit_publish.errors import RefusedError
from adroit_publish.gates.secrets.kinds import secrets_in, tokens_in

TEXT_BYTES = 4 << 20
_SNIFFED_BYTES = 8 << 10
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SHOWN = 20


@dataclass(frozen=True)
class _Secret:
    """One secret: its file and line (0: the file as a whole), and its kind."""

    path: str
    line: int
    kind: str

    def __str__(self) -> str:
        path = self.path.removeprefix("source/")
        return f"{path}:{self.line}: {self.kind}" if self.line else f"{path}: {self.kind}"


def check_secrets(
    files: Mapping[str, Readable], allowed: Collection[str]
) -> tuple[BundleFinding, ...]:
    """Returns what is waived, and what was not looked at to its end.

    Args:
        files: The bundle's files by path below ``opt/adroit``.
        allowed: Digests of files that may hold what looks like a secret.

    Raises:
        RefusedError: Some are not waived; names each by file, line and kind.
    """
    findings: list[BundleFinding] = []
    refused: dict[str, list[_Secret]] = {}
    for path, content in files.items():
        secrets, whole = _secrets_of(path, content)
        if not whole:
            what = f"only the first {TEXT_BYTES >> 20} MiB of {path} were searched for secrets"
            findings.append(BundleFinding(f"unsearched:{path}", what))
        if not secrets:
            continue
        digest = str(sha256_of(Concatenation((content,))))
        if digest in allowed:
            findings += [BundleFinding(f"secret:{digest}", f"waived: {one}") for one in secrets]
        else:
            refused[digest] = secrets
    if refused:
        raise _refusal(refused)
    return tuple(findings)


def _refusal(refused: Mapping[str, Iterable[_Secret]]) -> RefusedError:
    lines = [str(secret) for secrets in refused.values() for secret in secrets]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return RefusedError(
        "What would be packed looks like secrets; a version can never be changed.",
        got="\n".join([*lines[:_SHOWN], *more]),
        wanted="secrets in the environment of the server, or in a secret store",
        next_step=(
            "take them out, or add the file to `source: exclude` in config.yaml; revoke what was "
            "pushed; where they are no secrets, name the files' digests in config.yaml: "
            f'"security: {{allow_secrets: [{", ".join(refused)}]}}"'
        ),
    )


def _secrets_of(path: str, content: Readable) -> tuple[list[_Secret], bool]:
    """Returns a file's secrets, and whether it was looked at to its end."""
    kind = secret_kind(path.partition("/")[2] or path)
    with content.open() as stream:
        head = stream.read(_SNIFFED_BYTES)
        is_text = b"\0" not in head or head.startswith(_UTF_16)
        if not is_text and content.size_bytes > TEXT_BYTES:
            return ([_Secret(path, 0, kind)] if kind else []), True
        data = head + stream.read(TEXT_BYTES - len(head))
    if data.startswith(_UTF_16):
        data = data.decode("utf-16", "replace").encode()
    text = data.decode("latin-1")
    if kind and not (kind == "private key" and _is_public(text)):
        return [_Secret(path, 0, kind)], True
    if not is_text:
        return [
            _Secret(path, 0, kind) for kind in sorted({kind for _, kind in tokens_in(text)})
        ], True
    by_line = {_line(text, at): kind for at, kind in sorted(secrets_in(text, path), reverse=True)}
    secrets = [_Secret(path, line, kind) for line, kind in sorted(by_line.items())]
    return secrets, content.size_bytes <= TEXT_BYTES


def _is_public(text: str) -> bool:
    """Whether a file with a key's name holds certificates and public keys alone."""
    labels = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
    return bool(labels) and not any("PRIVATE" in label for label in labels)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
