"""A bundle as it lies on disk, read-only: in an image under /opt/adroit, or in a directory.

    model/        the MLflow model directory (MLmodel, ...)
    runtime/      this package, on sys.path before Python starts
    source/       the project's code, paths relative to the repository's root: the import root
    bundle.json   what the bundle is: every file with its size and digest, and how to serve it

``Bundle.read`` parses bundle.json, ``check`` compares the files with it, ``load_handler`` imports
the class that config.yaml named. Nothing here imports the model or MLflow.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from adroit.serving.handler import Handler

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

    def load_handler(self) -> Handler:
        """Returns the handler, constructed and not loaded.

        source/ becomes the first place where modules are looked for, also before the copies that
        MLflow logged with the model (``code_paths``) and puts in front when it loads: so a
        republished model runs the republished code.

        Raises:
            BundleError: ``class_path`` is malformed, its module or class is not there, the class
                does not take these kwargs, or it has no ``load`` and ``predict``.
            Exception: Whatever the handler's module or constructor raises of its own.
        """
        if str(self.source_dir) not in sys.path:
            sys.path.insert(0, str(self.source_dir))
            sys.meta_path.insert(0, _SourceFirst(self.source_dir))
        handler_class = self._import_class()
        try:
            handler = handler_class(**self.kwargs)
        except TypeError as error:
            raise BundleError(
                f"{self.class_path} does not take the kwargs {sorted(self.kwargs)} of "
                f"serve.handler: {error}"
            ) from error
        lacking = [
            name for name in ("load", "predict") if not callable(getattr(handler, name, None))
        ]
        if lacking:
            raise BundleError(f"{self.class_path} has no method {' and no method '.join(lacking)}")
        return handler  # type: ignore[no-any-return]

    def _import_class(self) -> Any:
        module_name, _, class_name = self.class_path.partition(":")
        if not module_name or not class_name:
            raise BundleError(f"class_path is {self.class_path!r}; it has the form module:Class")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise BundleError(
                    f"{module_name} imports {error.name}, which is neither in the bundle's "
                    "source nor in the conda environment"
                ) from error
            raise BundleError(
                f"module {module_name} of class_path {self.class_path!r} is not in the bundle: "
                f"no {error.name} under {self.source_dir} (it holds {self._source_tops()})"
            ) from error
        try:
            return getattr(module, class_name)
        except AttributeError as error:
            raise BundleError(f"module {module_name} has no class {class_name}") from error

    def _source_tops(self) -> str:
        names = sorted(path.name for path in self.source_dir.glob("*"))
        return ", ".join(names) or "nothing"

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
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != file.sha256:
                return [f"{file.path}: sha256 {digest}, bundle.json says {file.sha256}"]
        return []


def _made(path: Path) -> bool:
    """Tells whether Python wrote the file beside the code, in an image that runs as root."""
    return path.parent.name == "__pycache__" and path.suffix == ".pyc"


class _SourceFirst(MetaPathFinder):
    """Finds the modules of ``directory`` before every other finder; leaves the rest to them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent = self._directory.joinpath(*fullname.split(".")[:-1])
        spec = PathFinder.find_spec(fullname, [str(parent)])
        # A directory without __init__.py has no origin: its parts may lie in several places.
        return spec if spec is not None and spec.origin is not None else None


def _files(sections: Mapping[str, Any]) -> Iterator[BundleFile]:
    for kind in KINDS:
        for entry in sections.get(kind, ()):
            yield BundleFile(f"{kind}/{entry['path']}", int(entry["size"]), entry.get("sha256"))
