"""The import statements of one file: what each needs, when, and whether it may fail.

* ``import a.b`` needs ``a`` and ``a.b``; ``from a import b`` needs ``a``, and ``a.b`` if that is a
  module.
* ``importlib.import_module("a.b")`` and ``__import__("a.b")`` count as ``import a.b`` where the
  name is a literal; a computed name is nobody's to know.
* An import that is allowed to fail is optional: in a ``try`` that catches ImportError, or holds
  nothing but imports and catches everything, unless its ``except`` ends in ``raise``; under
  ``contextlib.suppress``; under an ``if`` that asks for a version, a platform, whether a module
  can be found, or for a name that such a ``try`` has bound (``HAS_SHAP``).
* An import is certain where it runs whenever its file is imported. In the body of a function, or
  under any other condition, it may run later or never.
* An import in the ``except`` of such a ``try`` is its substitute: needed only where one of the
  ``try`` is missing.
* What is under ``if TYPE_CHECKING`` or ``if __name__ == "__main__"`` is not imported at all.

Source: The Python Language Reference, section 5, "The import system", and section 7.11.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError"}
_ANY_ERRORS = {"Exception", "BaseException"}
_ASKS = {"version_info", "platform", "system", "implementation", "find_spec", "hexversion"}


@dataclass(frozen=True)
class Import:
    """One module that a statement imports.

    Attributes:
        module: Its absolute name.
        names: What is taken from it by ``from module import names``.
        file: Path of the file with the statement.
        line: Line of the statement, from 1.
        optional: Whether the program goes on without it.
        certain: Whether it runs whenever its file is imported.
        instead_of: Groups of imports it is a substitute for; it is needed where each of the groups
            lacks one.
    """

    module: str
    names: tuple[str, ...]
    file: str
    line: int
    optional: bool = False
    certain: bool = True
    instead_of: tuple[tuple[Import, ...], ...] = ()


def imports(tree: ast.Module, file: str, module: str, *, package: bool) -> list[Import]:
    """Returns the imports of one file in their order.

    Args:
        tree: The file, parsed.
        file: Its path, for messages.
        module: The name it is imported by; empty where it is loaded by its path.
        package: Whether it is an ``__init__.py``.

    Raises:
        RecursionError: It is nested deeper than this interpreter goes.
    """
    reader = _ImportReader(file, module, package)
    reader.visit(tree)
    return reader.imports


def bound_names(tree: ast.Module) -> set[str] | None:
    """Returns the names that a package's ``__init__.py`` binds; None where nobody can tell."""
    names = {"__doc__", "__file__", "__name__", "__package__", "__path__", "__spec__"}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name="__getattr__") | ast.ImportFrom(names=[ast.alias(name="*")]):
                return None
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Call(func=ast.Name(id="globals" | "vars" | "exec")):
                return None
            case _:
                pass
    return names


class _ImportReader(ast.NodeVisitor):
    """Gathers the imports of one file, each with what it depends on."""

    def __init__(self, file: str, module: str, package: bool) -> None:
        self.imports: list[Import] = []
        self._file = file
        self._name = module
        self._package = module if package else module.rpartition(".")[0]
        self._optional = False
        self._certain = True
        self._flags: set[str] = set()  # names that tell whether an optional import worked
        self._instead_of: tuple[tuple[Import, ...], ...] = ()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, (), node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = tuple(alias.name for alias in node.names if alias.name != "*")
        self._add(self._absolute("." * node.level + (node.module or "")), names, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        match node.args[:1]:
            case [ast.Constant(value=str(name))] if called in ("import_module", "__import__"):
                given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "package")]
                package = self._package_of(given[0]) if given else self._package
                computed = package is None and name.startswith(".")
                if name.strip(".") and not computed:
                    self._add(self._absolute(name, package), (), node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all([*node.decorator_list, node.args, *filter(None, [node.returns])])
        self._visit_all(node.body, certain=False)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._visit_all([node.body], certain=False)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if _names_in(node.value) & ({"find_spec"} | self._flags):
            self._flags |= set().union(*map(_names_in, node.targets))

    def visit_If(self, node: ast.If) -> None:
        asks = _names_in(node.test)
        if asks == {"__name__"} or "TYPE_CHECKING" in asks:
            inverted = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
            self._visit_all(node.body if inverted else node.orelse)
            return
        self.visit(node.test)
        optional = bool(asks & (_ASKS | self._flags))
        self._visit_all([*node.body, *node.orelse], optional=optional, certain=False)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.While | ast.Match) -> None:
        certain, self._certain = self._certain, False
        self.generic_visit(node)
        self._certain = certain

    visit_AsyncFor = visit_While = visit_Match = visit_For

    def visit_With(self, node: ast.With) -> None:
        suppressed = any(
            "suppress" in _names_in(item.context_expr)
            and _names_in(item.context_expr) & (_IMPORT_ERRORS | _ANY_ERRORS)
            for item in node.items
        )
        self._visit_all([*node.items, *node.body], optional=suppressed)

    def visit_Try(self, node: ast.Try) -> None:
        tolerant = [handler for handler in node.handlers if _tolerates(handler, node.body)]
        before = len(self.imports)
        self._visit_all(node.body, optional=bool(tolerant))
        tried = tuple(replace(one, optional=False) for one in self.imports[before:])
        for handler in node.handlers:
            instead_of = self._instead_of
            if handler in tolerant and tried:
                self._instead_of = (*instead_of, tried)
            self._visit_all(handler.body, certain=self._instead_of != instead_of)
            self._instead_of = instead_of
        self._visit_all(node.orelse, optional=bool(tolerant and tried))
        self._visit_all(node.finalbody)
        if tolerant and tried:
            self._flags |= set().union(*map(_bound_by, ast.walk(node)))

    visit_TryStar = visit_Try  # type: ignore[assignment]

    def _visit_all(
        self, nodes: Iterable[ast.AST], *, optional: bool = False, certain: bool = True
    ) -> None:
        outer = self._optional, self._certain
        self._optional, self._certain = self._optional or optional, self._certain and certain
        for node in nodes:
            self.visit(node)
        self._optional, self._certain = outer

    def _add(self, module: str, names: tuple[str, ...], line: int) -> None:
        self.imports.append(
            Import(
                module,
                names,
                self._file,
                line,
                optional=self._optional,
                certain=self._certain,
                instead_of=self._instead_of,
            )
        )

    def _absolute(self, name: str, package: str | None = None) -> str:
        """Returns the absolute name; one that leaves its package stays relative."""
        rest = name.lstrip(".")
        level = len(name) - len(rest)
        if not level:
            return name
        parts = (self._package if package is None else package).split(".")
        if not parts[0] or level > len(parts):
            return name
        return ".".join([*parts[: len(parts) - level + 1], *([rest] if rest else [])])

    def _package_of(self, node: ast.expr) -> str | None:
        match node:
            case ast.Constant(value=str(name)):
                return name
            case ast.Name(id="__package__"):
                return self._package
            case ast.Name(id="__name__"):
                return self._name
            case _:
                return None


def _tolerates(handler: ast.ExceptHandler, body: Sequence[ast.stmt]) -> bool:
    if handler.body and isinstance(handler.body[-1], ast.Raise):
        return False
    caught = _names_in(handler.type) if handler.type else _ANY_ERRORS
    only_imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
    return bool(caught & _IMPORT_ERRORS) or (only_imports and bool(caught & _ANY_ERRORS))


def _names_in(node: ast.AST) -> set[str]:
    """Returns the last part of every name in an expression: ``b`` of ``a.b``."""
    attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return attributes | {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _bound_by(node: ast.AST) -> set[str]:
    """Returns the names that an assignment or an import binds."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
        case _:
            return set()
