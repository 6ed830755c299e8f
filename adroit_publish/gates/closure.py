"""The gate that looks for what a bundle imports, before a request is the first to need it.

From the handler's module, the model's loader, its models-from-code file and the modules that its
pickles name, every import is followed through source/, the code that was logged with the model,
and the runtime. A module that was logged with the model and that the checkout has is followed in
the checkout, as it is served from there. A file of skops or torch is a pickle here, too.

Refused, because the bundle would not load: an import that runs as soon as the handler or the model
is imported and ends in none of them nor in the conda env; and one, whenever it runs, of a file that
was left out of one of the project's own packages. An import of a package that runs later, or never,
is a finding. So that the bundle imports what it holds: a module of the bundle with the name of an
installed one is refused, and so is one logged with the model for which the checkout has several
files. ``verify.accept`` in config.yaml names what is accepted all the same.

Nothing is imported or unpickled: files are read as text, and pickles are searched for names. What
one imports that is too large or damaged is not known.

Source: The Python Language Reference, section 5, "The import system"; Python library, ``pickle``
and ``pickletools`` (opcodes GLOBAL and SHORT_BINUNICODE); skops 0.16, ``skops.io._save``.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from adroit.import_closure import Closure, MissingModule, ModuleFiles, import_closure
from adroit.serving import own_modules
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.errors import SourceError, VerificationError
from adroit_publish.mlflow.mlmodel import parse_mlmodel

_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".pth", ".pt", ".skops")
_ZIPPED = (".pkl", "schema.json")  # what torch and skops name modules in
_PICKLE_BYTES = 64 << 20
_CODE_BYTES = 4 << 20
_SHOWN = 20


@dataclass(frozen=True)
class Served:
    """What is served: the bundle's files and how config.yaml wants them looked at.

    Attributes:
        files: By path below ``opt/adroit``: ``source/...``, ``model/...``, ``runtime/...``.
        class_path: The handler, ``module:Class``.
        accepted: Names of findings that are accepted, such as ``shadow:calendar``.
    """

    files: Mapping[str, Readable]
    model_name: str
    class_path: str
    accepted: Collection[str] = ()

    def below(self, directory: str) -> list[str]:
        """Returns the paths of the files below one of the bundle's directories."""
        prefix = f"{directory}/"
        return [path.removeprefix(prefix) for path in self.files if path.startswith(prefix)]


def check_closure(
    served: Served, import_names: Collection[str] | None
) -> tuple[Imports, tuple[BundleFinding, ...]]:
    """Returns what the handler and the model import, once all of it is found.

    Args:
        import_names: Top-level modules of the conda env and its Python, as ``ObservedEnv`` has
            them; None where nobody knows: then only a module that is left out of one of the
            bundle's own packages is found.

    Returns:
        The imports, and what of them is missing without having to be there, or is accepted.

    Raises:
        VerificationError: A module is in neither the bundle nor the env, one of the bundle has
            an installed one's name, or the checkout has several for one of the model's; all of a
            kind are in the one message.
    """
    python_function = _python_function(served.files)
    code = f"model/{python_function.get('code') or 'code'}"
    roots = ("source", code, "runtime")
    homes, unclear = _homes(served)
    places = {top: f"source/{home}" for top, home in homes.items()}
    modules = ModuleFiles(dict(_texts(served.files, roots)), roots, places)
    shadows = _check_shadows(modules, import_names, code, served)
    pickled, unsearched = _named_in_pickles(served.files, modules)
    start = [served.class_path.partition(":")[0], *pickled]
    if loader := python_function.get("loader_module"):
        start.append(str(loader))
    if written := python_function.get("model_code_path"):
        start.append("model/" + str(written).replace("\\", "/").rpartition("/")[2])
    closure = import_closure(modules, start, import_names)
    closure = replace(closure, unreadable=(*closure.unreadable, *unsearched))
    missing = _check_missing(closure.missing, served)
    return _imports(closure, homes), (*unclear, *shadows, *missing)


def _imports(closure: Closure, homes: Mapping[str, str]) -> Imports:
    def below(directory: str) -> tuple[str, ...]:
        prefix = f"{directory}/"
        return tuple(path[len(prefix) :] for path in closure.files if path.startswith(prefix))

    source = below("source")
    used = {
        top: home
        for top, home in homes.items()
        if any(path.startswith((f"{home}/{top}/", f"{home}/{top}.")) for path in source)
    }
    return Imports(source, below("model"), closure.external, used, closure.unreadable)


def _homes(served: Served) -> tuple[dict[str, str], tuple[BundleFinding, ...]]:
    """Returns the checkout's one directory of each module that the model imports otherwise."""
    homes = own_modules.homes(served.below("model"), served.below("source"), served.model_name)
    unclear = {top: roots for top, roots in homes.items() if len(roots) > 1}
    findings = [
        BundleFinding(
            f"module:{top}",
            f"{top} was logged with the model and is served as it was logged; the checkout has it "
            f"in {' and '.join(roots)}",
        )
        for top, roots in sorted(unclear.items())
    ]
    refused = [finding for finding in findings if finding.name not in served.accepted]
    if refused:
        raise VerificationError(
            "The checkout has several files for a module that was logged with the model.",
            got="\n".join(finding.what for finding in refused),
            wanted="one, which is served in the place of the logged one",
            next_step=(
                "exclude the others (source.exclude in config.yaml), or log the model again with "
                "code_path=[...] from the repository's root; to serve the logged copy: "
                f"{_accept(refused)}"
            ),
        )
    return own_modules.only(homes), tuple(findings)


def _texts(files: Mapping[str, Readable], roots: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for path, content in files.items():
        model_code = path.startswith("model/") and path.count("/") == 1
        if not (model_code or path.startswith(tuple(f"{root}/" for root in roots))):
            continue
        if path.endswith(".py") and content.size_bytes <= _CODE_BYTES:
            yield path, _read(content)
        elif path.endswith((".py", ".so")):
            yield path, b""


def _check_shadows(
    modules: ModuleFiles, import_names: Collection[str] | None, code: str, served: Served
) -> tuple[BundleFinding, ...]:
    installed = {"adroit", *(sys.stdlib_module_names if import_names is None else import_names)}
    findings = []
    for place in ("source", code):
        for name, path in sorted(modules.top_level(place).items()):
            if name in installed:
                does = "would shadow" if path is not None else "would be hidden by"
                shown = (path or f"{place}/{name}/").removeprefix("source/")
                what = f"{shown} {does} the module {name}"
                findings.append(BundleFinding(f"shadow:{name}", what))
    refused = [finding for finding in findings if finding.name not in served.accepted]
    if refused:
        raise VerificationError(
            "A module of the bundle has the name of one that is installed in the conda env.",
            got="\n".join(finding.what for finding in refused[:_SHOWN]),
            wanted="names at the import root that no installed module has",
            next_step=(
                "rename it, or move it into a package, and change its imports; code that was "
                "logged with the model (code_paths) has to be logged again; if it is meant: "
                f"{_accept(refused)}"
            ),
        )
    return tuple(findings)


def _check_missing(missing: Sequence[MissingModule], served: Served) -> tuple[BundleFinding, ...]:
    refused = [
        module
        for module in missing
        if module.needed and f"import:{module.module}" not in served.accepted
    ]
    if not refused:
        return tuple(
            BundleFinding(
                f"import:{module.module}", f"{_line(module)}, is in neither the bundle nor the env"
            )
            for module in missing
        )
    own = [module for module in refused if module.own]
    steps = []
    if own:
        steps.append(
            "bring what the bundle leaves out: commit it, and see source.include and "
            "source.exclude in config.yaml"
        )
    if len(own) < len(refused):
        steps.append(
            "add what is not the project's to the conda env; what is, to source.include; an "
            "import that may fail belongs in try/except ImportError"
        )
    names = [BundleFinding(f"import:{module.module}", "") for module in refused]
    raise VerificationError(
        "Imports of the handler or the model lead to modules in neither the bundle nor the env.",
        where=f"handler {served.class_path}",
        got="\n".join(_line(module) for module in refused[:_SHOWN]),
        next_step="; ".join([*steps, f"if it is never imported: {_accept(names)}"]),
    )


def _accept(findings: Sequence[BundleFinding]) -> str:
    names = ", ".join(dict.fromkeys(finding.name for finding in findings[:_SHOWN]))
    return f'"verify: {{accept: [{names}]}}" in config.yaml'


def _line(missing: MissingModule) -> str:
    if not missing.line:
        return f"{missing.module}, named by config.yaml or MLmodel"
    return f"{missing.module}, imported at {missing.file.removeprefix('source/')}:{missing.line}"


def _named_in_pickles(
    files: Mapping[str, Readable], modules: ModuleFiles
) -> tuple[list[str], list[str]]:
    """Returns the modules of the bundle that pickles name, and the pickles nobody could search."""
    patterns = {
        name: (
            b"\x8c" + bytes([len(name)]) + name.encode(),
            b"c" + name.encode() + b"\n",
            b'"' + name.encode() + b'"',  # skops
        )
        for name in modules.names()
        if len(name) < 256 and name.isascii()
    }
    named, unsearched = set(), []
    for path, content in files.items():
        if path.startswith("model/") and path.endswith(_PICKLES):
            data = _searched(content)
            if data is None:
                unsearched.append(path)
            else:
                named |= {name for name, forms in patterns.items() if any(f in data for f in forms)}
    return sorted(named), sorted(unsearched)


def _searched(content: Readable) -> bytes | None:
    """Returns the bytes in which a pickle names modules; None where they cannot be searched."""
    if content.size_bytes > _PICKLE_BYTES:
        return None
    data = _read(content)
    if not is_zipfile(BytesIO(data)):
        return data
    try:
        with ZipFile(BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(_ZIPPED)]
            if sum(member.file_size for member in members) > _PICKLE_BYTES:
                return None
            return b"".join([data, *map(archive.read, members)])
    except (BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error):
        return None


def _python_function(files: Mapping[str, Readable]) -> Mapping[str, Any]:
    """Returns that part of MLmodel; what is malformed in it is told where the model is pulled."""
    if "model/MLmodel" not in files:
        return {}
    try:
        mlmodel = parse_mlmodel(_read(files["model/MLmodel"]).decode())
        python_function = mlmodel["flavors"]["python_function"]
    except (SourceError, ValueError, KeyError, TypeError):
        return {}
    return python_function if isinstance(python_function, dict) else {}


def _read(content: Readable) -> bytes:
    with content.open() as stream:
        return stream.read()
