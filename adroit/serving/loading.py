"""From a bundle to its handler: the class that config.yaml named, imported from source/ first."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from adroit.serving import own_modules
from adroit.serving.bundle import Bundle, BundleError
from adroit.serving.handler import Handler


def load_handler(bundle: Bundle) -> Handler:
    """Returns the handler, constructed and not loaded.

    source/ becomes the first place where modules are looked for, also before the copies that
    MLflow logged with the model (``code_paths``) and puts in front when it loads: so a
    republished model runs the republished code. Copies that were logged from below the
    repository's root, such as a plain ``data_prep.py``, are looked for in the directory of
    source/ that they come from (see ``own_modules``).

    Raises:
        BundleError: ``class_path`` is malformed, its module or class is not there, the class
            does not take these kwargs, or it has no ``load`` and ``predict``.
        Exception: Whatever the handler's module or constructor raises of its own.
    """
    if str(bundle.source_dir) not in sys.path:
        sys.path.insert(0, str(bundle.source_dir))
        sys.meta_path.insert(0, _SourceFirst(bundle.source_dir, _homes(bundle)))
    handler_class = _import_class(bundle)
    try:
        handler = handler_class(**bundle.kwargs)
    except TypeError as error:
        raise BundleError(
            f"{bundle.class_path} does not take the kwargs {sorted(bundle.kwargs)} of "
            f"serve.handler: {error}"
        ) from error
    lacking = [name for name in ("load", "predict") if not callable(getattr(handler, name, None))]
    if lacking:
        raise BundleError(f"{bundle.class_path} has no method {' and no method '.join(lacking)}")
    return handler  # type: ignore[no-any-return]


def _homes(bundle: Bundle) -> dict[str, str]:
    """Returns the directory below source/ of each top-level name that has one of its own."""
    paths: dict[str, list[str]] = {"model": [], "source": []}
    for file in bundle.files:
        kind, _, path = file.path.partition("/")
        paths.setdefault(kind, []).append(path)
    return own_modules.only(own_modules.homes(paths["model"], paths["source"], bundle.model_name))


def _import_class(bundle: Bundle) -> Any:
    module_name, _, class_name = bundle.class_path.partition(":")
    if not module_name or not class_name:
        raise BundleError(f"class_path is {bundle.class_path!r}; it has the form module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise BundleError(
                f"{module_name} imports {error.name}, which is neither in the bundle's "
                "source nor in the conda environment"
            ) from error
        raise BundleError(
            f"module {module_name} of class_path {bundle.class_path!r} is not in the bundle: "
            f"no {error.name} under {bundle.source_dir} (it holds {_source_tops(bundle)})"
        ) from error
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        raise BundleError(f"module {module_name} has no class {class_name}") from error


def _source_tops(bundle: Bundle) -> str:
    names = sorted(path.name for path in bundle.source_dir.glob("*"))
    return ", ".join(names) or "nothing"


class _SourceFirst(MetaPathFinder):
    """Finds the modules of ``directory`` before every other finder; leaves the rest to them.

    Args:
        directory: The import root.
        homes: Directories below it that stand in for it, by the top-level name of a module.
    """

    def __init__(self, directory: Path, homes: Mapping[str, str]) -> None:
        self._directory, self._homes = directory, homes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, *below = fullname.split(".")
        root = self._directory / self._homes.get(top, "")
        parent = root.joinpath(top, *below[:-1]) if below else root
        spec = PathFinder.find_spec(fullname, [str(parent)])
        # A directory without __init__.py has no origin: its parts may lie in several places.
        return spec if spec is not None and spec.origin is not None else None
