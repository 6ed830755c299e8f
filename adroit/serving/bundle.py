"""A bundle as it lies on disk, read-only: in an image under /opt/adroit, or in a directory.

    model/        the MLflow model directory (MLmodel, ...)
    runtime/      this package, on sys.path before Python starts
    source/       the project's code, paths relative to the repository's root: the import root
    bundle.json   what the bundle is: every file with its size and digest, and how to serve it

``Bundle.read`` parses bundle.json, ``check`` compares the files with it; ``loading`` imports the
class that config.yaml named. Nothing here imports the model or MLflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_ROOT = Path("/opt/adroit")
SCHEMA = 1
KINDS = ("model", "runtime", "source")
_PROBLEMS_SHOWN = 20


class BundleError(Exception):
    """The bundle cannot be served: its record, a file or its handler is not what it has to be."""


@dataclass(frozen=True)
class BundleFile:
    """One file that bundle.json names.

    Attributes:
        path: Relative to the bundle's root, e.g. ``model/MLmodel``.
        size_bytes: Its length.
        sha256: Hex digest of its bytes; None where the file is alone in its layer and is named
            by that layer's digest instead.
    """

    path: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says, and where it lies.

    Attributes:
        root: The directory that holds bundle.json.
        bundle_id: ``sha256:<hex>`` of bundle.json: all that a server can know of its identity.
        model_name: The model's name.
        run_id: The MLflow run it was logged by, 32 hex digits.
        class_path: The handler, as ``module:Class``.
        kwargs: The handler's constructor arguments.
        files: Every file of model/, runtime/ and source/.
        document: bundle.json as parsed, for what has no attribute here.
    """

    root: Path
    bundle_id: str
    model_name: str
    run_id: str
    class_path: str
    kwargs: Mapping[str, Any]
    files: tuple[BundleFile, ...]
    document: Mapping[str, Any]

    @classmethod
    def read(cls, root: Path = DEFAULT_ROOT) -> Bundle:
        """Returns the bundle in ``root``; reads bundle.json and nothing else.

        Raises:
            BundleError: bundle.json is missing, is no JSON, has another schema, or lacks a key.
        """
        record = root / "bundle.json"
        try:
            raw = record.read_bytes()
            document = json.loads(raw)
        except (OSError, ValueError) as error:
            raise BundleError(f"{record} cannot be read: {error}") from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise BundleError(f"{record} has schema {schema!r}; this runtime reads {SCHEMA}")
        try:
            handler = document["serve"]["handler"]
            return cls(
                root=root,
                bundle_id="sha256:" + hashlib.sha256(raw).hexdigest(),
                model_name=document["model_name"],
                run_id=document["run_id"],
                class_path=handler["class_path"],
                kwargs=dict(handler.get("kwargs") or {}),
                files=tuple(_files(document["files"])),
                document=document,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{record} is no bundle record: {error!r}") from error

    @property
    def model_dir(self) -> Path:
        """The MLflow model directory: what ``mlflow.pyfunc.load_model`` takes."""
        return self.root / "model"

    @property
    def source_dir(self) -> Path:
        """The import root of the project's code."""
        return self.root / "source"

    def check(self, *, deep: bool = False) -> None:
        """Compares the files on disk with bundle.json: none missing, none extra, sizes equal.

        Args:
            deep: Compare digests as well. A file that is named by its layer's digest is left
                out, because that digest is of a tar; ``adroit_publish verify`` and ``pull``
                check it.

        Raises:
            BundleError: Names every file that differs (the first 20).
        """
        listed = {file.path: file for file in self.files}
        present = {
            path: file for path, file in self._present() if path in listed or not _made(file)
        }
        problems = [f"{path}: missing" for path in listed if path not in present]
        problems += [f"{path}: not in bundle.json" for path in present if path not in listed]
        for path, file in listed.items():
            if path in present:
                problems += self._differences(file, present[path], deep)
        if problems:
            shown = "\n".join(sorted(problems)[:_PROBLEMS_SHOWN])
            raise BundleError(
                f"{self.root}: {len(problems)} files differ from bundle.json\n{shown}"
            )

    def _present(self) -> Iterator[tuple[str, Path]]:
        for kind in KINDS:
            for path in (self.root / kind).rglob("*"):
                if path.is_symlink() or not path.is_dir():
                    yield path.relative_to(self.root).as_posix(), path

    def _differences(self, file: BundleFile, path: Path, deep: bool) -> list[str]:
        if path.is_symlink() or not path.is_file():
            return [f"{file.path}: not a regular file"]
        size = path.stat().st_size
        if size != file.size_bytes:
            return [f"{file.path}: {size} bytes, bundle.json says {file.size_bytes}"]
        if deep and file.sha256 is not None:
            digest = _sha256(path)
            if digest != file.sha256:
                return [f"{file.path}: sha256 {digest}, bundle.json says {file.sha256}"]
        return []


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()  # hashlib.file_digest is Python 3.11's, and an image may have 3.10
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _made(path: Path) -> bool:
    """Tells whether Python wrote the file beside the code, in an image that runs as root."""
    return path.parent.name == "__pycache__" and path.suffix == ".pyc"


def _files(sections: Mapping[str, Any]) -> Iterator[BundleFile]:
    for kind in KINDS:
        for entry in sections.get(kind, ()):
            yield BundleFile(f"{kind}/{entry['path']}", int(entry["size"]), entry.get("sha256"))
