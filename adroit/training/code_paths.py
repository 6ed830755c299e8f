"""The code that is logged with a model: copied under its import names, and seen to be complete.

MLflow copies each of its ``code_paths`` by the last part of its path, so that ``projects/my_model``
could only be imported as ``my_model``. Here a path keeps the name it is imported by: of the
directories on ``sys.path`` that hold it, the one under which it was imported, else the outermost,
is its root. What no model needs to predict is left out, as a bundle's source leaves it out.

Then every import is followed from the model's class and from what its pickle names: one that leads
neither to the copied code nor to an installed package is told by file and line. That is the gate a
publish applies too, hours later.
"""

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from os import PathLike
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

from adroit.import_closure import MissingModule, ModuleFiles, import_closure
from adroit.training.errors import TrainingError

CodePath = str | PathLike[str]
_LEFT_OUT = ignore_patterns(
    "flow.py", "config.yaml", "tests", "*.md", "*.ipynb", "__pycache__", ".*"
)
_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.cloudpickle", "*.dill")


def stage_code(code_path: CodePath | Sequence[CodePath] | None, into: Path) -> list[Path]:
    """Copies code to where each file has its import name, and returns what is at the top.

    Args:
        code_path: Packages' directories, or files.
        into: An empty directory.

    Raises:
        TrainingError: A path is not there.
    """
    if code_path is None:
        return []
    given = [code_path] if isinstance(code_path, str | PathLike) else code_path
    for path in (Path(name).resolve() for name in given):
        if not path.exists():
            raise TrainingError(
                "A path of code_path does not exist.", where=path, next_step="mend code_path"
            )
        place = into / path.relative_to(_import_root(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            copytree(path, place, ignore=_LEFT_OUT, dirs_exist_ok=True)
        else:
            copy2(path, place)
    return sorted(into.iterdir())


def check_imports(staged: Path, start: Iterable[str], model: str) -> None:
    """Follows every import from some modules, or files in ``staged``; all have to lead somewhere.

    Args:
        staged: As ``stage_code`` left it.
        start: Names of modules, or paths of files that are loaded by path.
        model: The model's name, for the message.

    Raises:
        TrainingError: A module is neither there nor installed; all such are in one message.
    """
    texts = {
        path.relative_to(staged).as_posix(): path.read_bytes() if path.suffix == ".py" else b""
        for path in sorted(staged.rglob("*"))
        if path.suffix in (".py", ".so") and path.is_file()
    }
    start = list(start)
    texts |= {name: Path(name).read_bytes() for name in start if name.endswith(".py")}
    closure = import_closure(ModuleFiles(texts), start, installed())
    missing = [module for module in closure.missing if module.needed]
    if missing:
        raise TrainingError(
            "The model needs modules that would not be logged with it.",
            where=model,
            got="\n".join(map(_line, missing)),
            wanted="each in code_path, or installed",
            next_step=_advice(missing),
        )


def modules_in_pickles(directory: Path) -> list[str]:
    """Returns the modules of this process that are not installed and that a pickle names.

    Args:
        directory: A saved model.
    """
    strings = {text for pattern in _PICKLES for text in _strings(directory.rglob(pattern))}
    return sorted(name for name in strings if is_own(name))


def is_own(module: str) -> bool:
    """Returns whether a module of this process is code that has to be logged with a model."""
    return (
        module in sys.modules
        and module != "__main__"
        and module.partition(".")[0] not in installed()
    )


@cache
def installed() -> Collection[str]:
    """Returns the top-level modules that a clean process has; asked one by one."""
    asked = [sys.executable, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
    path = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    return _Installed(path)


class _Installed(Collection[str]):
    """The standard library, and what is on the path of a clean process.

    Args:
        path: Its ``sys.path``.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = path

    def __contains__(self, name: object) -> bool:
        if name in sys.stdlib_module_names:
            return True
        spec = PathFinder.find_spec(str(name), self._path)
        return spec is not None or name in _distributed()  # an editable install has no file

    def __iter__(self) -> Iterator[str]:
        return iter(sys.stdlib_module_names | _distributed())

    def __len__(self) -> int:
        return len(sys.stdlib_module_names | _distributed())


@cache
def _distributed() -> frozenset[str]:
    return frozenset(packages_distributions())


def _import_root(path: Path) -> Path:
    holding = {Path(entry or ".").resolve() for entry in sys.path} & set(path.parents)
    roots = sorted(holding, key=lambda root: len(root.parts), reverse=True)
    for root in roots:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if any(module == name or module.startswith(f"{name}.") for module in list(sys.modules)):
            return root
    return roots[-1] if roots else path.parent


def _strings(pickles: Iterable[Path]) -> Iterator[str]:
    for pickle in pickles:
        with pickle.open("rb") as stream:
            try:
                for _, argument, _ in pickletools.genops(stream):
                    if isinstance(argument, str):
                        yield argument.partition(" ")[0]  # GLOBAL has "module name" in one
            except ValueError:
                continue  # something else by that name


def _line(missing: MissingModule) -> str:
    if not missing.line:
        return f"{missing.module}, which holds the model's class or is named in its pickle"
    return str(missing)


def _advice(missing: Sequence[MissingModule]) -> str:
    files = {getattr(sys.modules.get(gap.module), "__file__", None) for gap in missing}
    known = sorted(str(Path(file)) for file in files if file)
    if known:
        return "code_path=[..., " + ", ".join(f'"{_from_here(file)}"' for file in known) + "]"
    return "add them to code_path, or install them and name them in pip_requirements"


def _from_here(file: str) -> str:
    path, here = Path(file).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
