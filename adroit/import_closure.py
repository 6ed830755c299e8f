"""What a set of modules imports, and where each import is found: among given files, or not.

``import_closure`` starts at some modules, reads what they import, goes on with those imports that
lie among the given files, and says of all others which are in the environment and which nowhere.
It reads text and runs nothing; ``import_statements`` says what a statement is taken for.
An import that runs only later, in a function or under a condition, is followed too, and so is all
that its module imports; none of it has to be there for the start to be imported.

``from a import b`` needs a module ``a.b`` where ``a`` is a package among the files and does not
bind ``b`` itself. Of a package in the environment only its top-level name is looked at. Nothing
here opens a file, so it serves the publisher and the flows that train alike.

Source: The Python Language Reference, section 5, "The import system".
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adroit.import_statements import Import, bound_names, imports

_SUFFIXES = (".py", ".so", ".pyd")


@dataclass(frozen=True)
class MissingModule:
    """A module that is imported and is nowhere.

    Attributes:
        module: Its absolute name.
        file: Path of the file that imports it.
        line: Line of the statement; 0 for a module that the closure was to start at.
        certain: Whether it is imported as soon as the start is; otherwise later, or never.
        own: Whether another part of its top-level package is among the files.
    """

    module: str
    file: str
    line: int
    certain: bool = True
    own: bool = False

    @property
    def needed(self) -> bool:
        """Whether the program cannot do without it: what is its own was left out by mistake."""
        return self.certain or self.own

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.module}, imported at {place}"


@dataclass(frozen=True)
class Closure:
    """Everything that some modules import.

    Attributes:
        files: Paths of the files that are reached, sorted.
        external: Top-level names that the environment has to bring, sorted.
        missing: What is neither there nor in the environment, each module once: first what is
            certain, in the order met.
        unreadable: Paths of reached files that are no Python, as far as this interpreter can tell.
    """

    files: tuple[str, ...]
    external: tuple[str, ...]
    missing: tuple[MissingModule, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Module:
    """A module among the files.

    Attributes:
        name: Its absolute name.
        path: Its file; None for a directory without ``__init__.py``.
        package: Whether it can have submodules.
        root: The root of its file.
    """

    name: str
    path: str | None
    package: bool
    root: str


class ModuleFiles:
    """The modules that a set of files holds.

    Args:
        texts: Source by POSIX path. Extension modules count as modules without imports.
        roots: Directories among the paths that stand on ``sys.path``, first come first
            found; ``""`` for the top.
        homes: Directories that stand in for all roots, by the top-level name of a module.
    """

    def __init__(
        self,
        texts: Mapping[str, bytes],
        roots: Sequence[str] = ("",),
        homes: Mapping[str, str] | None = None,
    ) -> None:
        self.texts = texts
        self._modules: dict[str, _Module] = {}
        for top, home in (homes or {}).items():
            self._add_root(home, top)
        for root in roots:
            self._add_root(root)

    def _add_root(self, root: str, top: str = "") -> None:
        prefix = f"{root.strip('/')}/" if root.strip("/") else ""
        # A package is known before a module of its name next to it, which it hides.
        for path in sorted(self.texts, key=lambda path: ("/__init__." not in path, path)):
            if path.startswith(prefix) and path.endswith(_SUFFIXES):
                inside = path[len(prefix) :]
                if not top or inside.partition("/")[0].partition(".")[0] == top:
                    self._add(path, inside, root)

    def find(self, name: str) -> _Module | None:
        """Returns the module of that name, or None."""
        return self._modules.get(name)

    def names(self) -> tuple[str, ...]:
        """Returns the names of all modules."""
        return tuple(self._modules)

    def top_level(self, root: str) -> dict[str, str | None]:
        """Returns the top-level names of a root, each with its file; None for a bare directory.

        Args:
            root: One of ``roots``; names that an earlier root has are not among the result.
        """
        tops = (module for name, module in self._modules.items() if "." not in name)
        return {module.name: module.path for module in tops if module.root == root}

    def _add(self, path: str, inside: str, root: str) -> None:
        *parents, file = inside.split("/")
        stem = file.partition(".")[0]  # an extension module has its ABI in its name
        parts = parents if stem == "__init__" else [*parents, stem]
        if not parts or not all(part.isidentifier() for part in parts):
            return
        *above, name = _with_parents(".".join(parts))
        for parent in above:
            known = self._modules.setdefault(parent, _Module(parent, None, True, root))
            if known.path is not None and (known.root != root or not known.package):
                return  # a package with __init__.py is all in one place; a module holds nothing
        here = self._modules.get(name)
        if here is None or here.path is None:
            self._modules[name] = _Module(name, path, stem == "__init__", root)


def import_closure(
    files: ModuleFiles,
    start: Iterable[str],
    environment: Collection[str] | None,
) -> Closure:
    """Returns everything that some modules import, directly or through one another.

    Args:
        files: Where modules are looked for first.
        start: Names of modules; one that is not among the files has to be in the environment. Or
            paths of ``.py`` files among them, for those that are loaded by path.
        environment: Top-level names that can be imported beside the files, the standard library's
            among them; None where nobody knows: then only what lies in a package or directory of
            the files can be missing.
    """
    walk = _Walk(files, environment)
    for name in start:
        if name in files.texts:
            walk.take(_Module("", name, False, ""))
        else:
            walk.need(Import(name, (), name, 0))
    walk.run()
    return Closure(
        tuple(sorted(walk.files)),
        tuple(sorted(walk.external)),
        tuple(walk.missing.values()),
        tuple(sorted(walk.unreadable)),
    )


@dataclass
class _Walk:
    modules: ModuleFiles
    environment: Collection[str] | None
    queue: deque[_Module] = field(default_factory=deque)
    files: set[str] = field(default_factory=set)
    external: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    missing: dict[str, MissingModule] = field(default_factory=dict)
    trees: dict[str, ast.Module | None] = field(default_factory=dict)
    certain: bool = True
    later: deque[Import] = field(default_factory=deque)

    def run(self) -> None:
        """Follows all that is certain first, then what may be imported later."""
        while self.queue or self.later:
            if self.queue:
                self._read(self.queue.popleft())
            else:
                self.certain = False
                self.need(self.later.popleft())

    def need(self, wanted: Import) -> None:
        """Takes what one import needs into the closure, or notes what of it is missing."""
        if any(all(map(self._satisfied, group)) for group in wanted.instead_of):
            return
        for name in _with_parents(wanted.module):
            if not self._take_or_note(name, wanted):
                return
        for name in self._submodules(wanted):
            self._take_or_note(name, wanted)

    def take(self, module: _Module) -> None:
        """Takes one module of the files into the closure."""
        if module.path is not None and module.path not in self.files:
            self.files.add(module.path)
            if module.path.endswith(".py"):
                self.queue.append(module)

    def _read(self, module: _Module) -> None:
        """Takes what one module imports into the closure."""
        assert module.path is not None  # or it would not be in the queue
        tree = self._tree(module.path)
        try:
            wanted = imports(tree, module.path, module.name, package=module.package) if tree else []
        except RecursionError:
            self.unreadable.add(module.path)
            return
        for one in wanted:
            if one.certain or not self.certain:
                self.need(one)
            else:
                self.later.append(one)

    def _take_or_note(self, name: str, wanted: Import) -> bool:
        module = self.modules.find(name)
        if module is not None:
            self.take(module)
        elif self._has(name):
            self.external.add(name.partition(".")[0])
        elif not wanted.optional:
            own = self.modules.find(name.partition(".")[0]) is not None
            where = MissingModule(name, wanted.file, wanted.line, self.certain, own)
            self.missing.setdefault(name, where)
            return False
        return module is not None or self._has(name)

    def _satisfied(self, wanted: Import) -> bool:
        return all(map(self._has, (*_with_parents(wanted.module), *self._submodules(wanted))))

    def _has(self, name: str) -> bool:
        if self.modules.find(name) is not None:
            return True
        if name.startswith("."):
            return False  # a relative import that leaves its package
        above = [self.modules.find(parent) for parent in _with_parents(name)]
        if any(one and one.path and not one.path.endswith(".py") for one in above):
            return True  # an extension module can make modules below itself
        top = name.partition(".")[0]
        own = self.modules.find(top)
        if own is None:
            return self.environment is None or top in self.environment
        # A bare directory may have another part in the environment; a package has not.
        return own.path is None and self.environment is not None and top in self.environment

    def _submodules(self, wanted: Import) -> Iterator[str]:
        """Yields the names of ``from package import names`` that have to be modules."""
        package = self.modules.find(wanted.module)
        if package is None or not package.package:
            return
        bound = self._bound(package)
        for name in wanted.names:
            full = f"{wanted.module}.{name}"
            if self.modules.find(full) or (bound is not None and name not in bound):
                yield full

    def _bound(self, package: _Module) -> set[str] | None:
        """Returns the names that a package binds itself; None where nobody can tell."""
        if package.path is None:
            return set()
        tree = self._tree(package.path) if package.path.endswith(".py") else None
        return None if tree is None else bound_names(tree)

    def _tree(self, path: str) -> ast.Module | None:
        if path not in self.trees:
            try:
                self.trees[path] = ast.parse(self.modules.texts[path])
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                self.trees[path] = None
                self.unreadable.add(path)
        return self.trees[path]


def _with_parents(name: str) -> list[str]:
    if name.startswith("."):
        return [name]
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
