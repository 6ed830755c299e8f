"""Where the checkout has the modules that were logged with a model.

MLflow keeps ``code_paths`` in the model, by the last part of each path: a flow that runs in
projects/my_model logs ``data_prep.py`` as model/code/data_prep.py, and the model imports it as
``data_prep``. The checkout has the same file as projects/my_model/data_prep.py, and that one is to
be served: it is the one that people edit. ``homes`` finds it by its path alone, so that a publisher
and a server come to the same answer from the lists of files in bundle.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

SUFFIXES = (".py", ".so", ".pyd")
CODE = "code/"
"""Where MLflow keeps a model's own modules, below the model's directory."""


def homes(
    model: Collection[str], source: Collection[str], model_name: str
) -> dict[str, tuple[str, ...]]:
    """Returns the directories of the checkout that may be the home of a model's own modules.

    A directory is a home of a top-level name if it holds files at the paths that they have below
    code/. Of several, the one with the most of these files wins; then the model's own project
    directory; then a directory below that. What the repository's root holds needs no home.

    Args:
        model: Paths of the model's files, below the model's directory.
        source: Paths of the bundle's source files, relative to the repository's root.
        model_name: The model's name, which is that of its project's directory.

    Returns:
        Directories by top-level name: one, or more than one where nothing tells them apart. A name
        that the checkout does not have is left out.
    """
    found: dict[str, Counter[str]] = {}
    by_file = _by_file(source)
    for path in _modules(model):
        top = path.partition("/")[0].partition(".")[0]
        for candidate in by_file.get(path.rpartition("/")[2], ()):
            if f"/{candidate}".endswith(f"/{path}"):
                root = candidate.removesuffix(path).rstrip("/")
                found.setdefault(top, Counter())[root] += 1
    return {top: _best(files, model_name) for top, files in found.items() if "" not in files}


def only(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the home of each name that has exactly one."""
    return {top: roots[0] for top, roots in found.items() if len(roots) == 1}


def _modules(model: Collection[str]) -> list[str]:
    code = (path.removeprefix(CODE) for path in model if path.startswith(CODE))
    return [path for path in code if path.endswith(SUFFIXES)]


def _by_file(source: Collection[str]) -> dict[str, list[str]]:
    by_file: dict[str, list[str]] = {}
    for path in source:
        by_file.setdefault(path.rpartition("/")[2], []).append(path)
    return by_file


def _best(files: Counter[str], model_name: str) -> tuple[str, ...]:
    def rank(root: str) -> tuple[int, bool, bool]:
        parts = root.split("/")
        return files[root], parts[-1] == model_name, model_name in parts

    best = max(map(rank, files))
    return tuple(sorted(root for root in files if rank(root) == best))
