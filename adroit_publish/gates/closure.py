"""The gate that looks for what a bundle imports, before a request is the first to need it.

From the handler's module, the model's loader, its models-from-code file and the modules that its
pickles name, every import is followed through source/, the code that was logged with the model,
and the runtime. An import that ends in none of them has to be in the conda env. Prediction on one
example misses what a function imports later; this does not.

The other way round, a module of the bundle with the name of an installed one would be imported in
its place by everything else in the process, or not at all; it is refused by name.

Nothing is imported or unpickled: files are read as text, and pickles are searched for names.

Source: The Python Language Reference, section 5, "The import system"; Python library, ``pickle``
and ``pickletools`` (opcodes GLOBAL and SHORT_BINUNICODE).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from adroit.import_closure import Closure, MissingModule, ModuleFiles, import_closure
from adroit_publish.bundle.content import Readable
from adroit_publish.errors import SourceError, VerificationError
from adroit_publish.mlflow.mlmodel import parse_mlmodel

_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")
_PICKLE_BYTES = 64 << 20
_CODE_BYTES = 4 << 20
_SHOWN = 20


def check_closure(
    files: Mapping[str, Readable], class_path: str, import_names: Collection[str] | None
) -> Closure:
    """Returns what the handler and the model import, once all of it is found.

    Args:
        files: The bundle's files by path below ``opt/adroit``: ``source/...``, ``model/...``,
            ``runtime/...``.
        class_path: The handler, ``module:Class``.
        import_names: Top-level modules of the conda env and its Python, as ``ObservedEnv`` has
            them; None where nobody knows: then only a module that is left out of one of the
            bundle's own packages is found.

    Raises:
        VerificationError: A module is in neither the bundle nor the env, or one of the bundle has
            an installed one's name; all of them are in the one message.
    """
    python_function = _python_function(files)
    code = f"model/{python_function.get('code') or 'code'}"
    roots = ("source", code, "runtime")
    modules = ModuleFiles(dict(_texts(files, roots)), roots)
    _check_shadows(modules, import_names, code)
    start = [class_path.partition(":")[0], *_named_in_pickles(files, modules)]
    if loader := python_function.get("loader_module"):
        start.append(str(loader))
    if written := python_function.get("model_code_path"):
        start.append("model/" + str(written).replace("\\", "/").rpartition("/")[2])
    closure = import_closure(modules, start, import_names)
    if closure.missing:
        raise _incomplete(closure.missing, modules, class_path)
    return closure


def _texts(files: Mapping[str, Readable], roots: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for path, content in files.items():
        model_code = path.startswith("model/") and path.count("/") == 1
        if not (model_code or path.startswith(tuple(f"{root}/" for root in roots))):
            continue
        if path.endswith(".py") and content.size_bytes <= _CODE_BYTES:
            yield path, _read(content)
        elif path.endswith((".py", ".so")):
            yield path, b""


def _check_shadows(modules: ModuleFiles, import_names: Collection[str] | None, code: str) -> None:
    installed = {"adroit", *(sys.stdlib_module_names if import_names is None else import_names)}
    shadows = []
    for root, place in enumerate(("source", code)):
        for name, path in sorted(modules.top_level(root).items()):
            if name in installed:
                does = "would shadow" if path is not None else "would be hidden by"
                shown = (path or f"{place}/{name}/").removeprefix("source/")
                shadows.append(f"{shown} {does} the module {name}")
    if shadows:
        raise VerificationError(
            "A module of the bundle has the name of one that is installed in the conda env.",
            got="\n".join(shadows[:_SHOWN]),
            wanted="names at the import root that no installed module has",
            next_step=(
                "rename it, or move it into a package, and change its imports; code that was "
                "logged with the model (code_paths) has to be logged again"
            ),
        )


def _incomplete(
    missing: tuple[MissingModule, ...], modules: ModuleFiles, class_path: str
) -> VerificationError:
    own = [each for each in missing if _is_own(each, modules)]
    steps = []
    if own:
        steps.append(
            "bring what the bundle leaves out: commit it, and see source.include and "
            "source.exclude in config.yaml"
        )
    if len(own) < len(missing):
        steps.append(
            "add what is not the project's to the conda env; what is, to source.include; an "
            "import that may fail belongs in try/except ImportError"
        )
    return VerificationError(
        "Imports of the handler or the model lead to modules in neither the bundle nor the env.",
        where=f"handler {class_path}",
        got="\n".join(_line(each) for each in missing[:_SHOWN]),
        next_step="; ".join(steps),
    )


def _is_own(missing: MissingModule, modules: ModuleFiles) -> bool:
    return modules.find(missing.module.partition(".")[0]) is not None


def _line(missing: MissingModule) -> str:
    if not missing.line:
        return f"{missing.module}, named by config.yaml or MLmodel"
    return f"{missing.module}, imported at {missing.file.removeprefix('source/')}:{missing.line}"


def _named_in_pickles(files: Mapping[str, Readable], modules: ModuleFiles) -> list[str]:
    """Returns the modules of the bundle that a pickle imports when it is loaded."""
    patterns = {
        name: (b"\x8c" + bytes([len(name)]) + name.encode(), b"c" + name.encode() + b"\n")
        for name in modules.names()
        if len(name) < 256 and name.isascii()
    }
    found = set()
    for path, content in files.items():
        pickle = path.startswith("model/") and path.endswith(_PICKLES)
        if pickle and content.size_bytes <= _PICKLE_BYTES:
            data = _read(content)
            found |= {name for name, pair in patterns.items() if any(p in data for p in pair)}
    return sorted(found)


def _python_function(files: Mapping[str, Readable]) -> Mapping[str, Any]:
    """Returns that part of MLmodel; what is malformed in it is told where the model is pulled."""
    if "model/MLmodel" not in files:
        return {}
    try:
        mlmodel = parse_mlmodel(_read(files["model/MLmodel"]).decode())
        found = mlmodel["flavors"]["python_function"]
    except (SourceError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(content: Readable) -> bytes:
    with content.open() as stream:
        return stream.read()
