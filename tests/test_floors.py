"""The floors of adroit_publish: an import goes down, never up, and only into rooms it may enter."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import adroit
import adroit_publish

ROOT = Path(adroit_publish.__file__).parent.parent
FLOORS = (
    ("errors",),
    ("edge",),
    ("bundle", "config", "rollover"),
    (
        *("aws", "attestations", "artifacts", "mlflow", "git"),
        *("stores", "registry", "gates", "evidence"),
    ),
    ("checkout", "version", "places", "decide", "custody"),
    ("publish", "versions", "writeback", "rollovers", "envs", "doctor", "projects"),
    ("__init__", "cli", "__main__"),
)
"""From the ground up; on one floor a room imports only from rooms to its left."""
ORDER = [room for floor in FLOORS for room in floor]
PURE = {"errors", *FLOORS[2], "decide"}
FRONTS_ONLY = {"metaflow", "click", "rich"}
IMPURE = {
    "asyncio", "boto3", "docker", "fcntl", "git", "http", "io", "mlflow", "multiprocessing", "os",
    "pathlib", "random", "requests", "secrets", "shutil", "socket", "subprocess", "tempfile",
    "threading", "time", "urllib",
}  # fmt: skip
PURE_PARTS = {"io.BytesIO", "pathlib.PurePosixPath", "urllib.parse"}
HEAVY = {
    "boto3", "botocore", "cryptography", "cyclonedx", "docker", "git", "mlflow", "numpy", "pandas",
    "rich", "securesystemslib", "sklearn",
}  # fmt: skip


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                yield node.module, f"{node.module}.{alias.name}"


def room(path):
    return path.relative_to(ROOT / "adroit_publish").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules("adroit_publish"), ids=str)
def test_imports_go_down_and_never_across(path):
    here = room(path)
    for module, name in imports(path):
        if not module.startswith("adroit_publish"):
            continue
        there = [*name.split("."), "__init__"][1]
        there = there if there in ORDER else "__init__"
        same = there == here
        assert same or ORDER.index(there) < ORDER.index(here), f"{here} imports {name}"


@pytest.mark.parametrize("path", modules("adroit_publish"), ids=str)
def test_only_the_fronts_know_the_frameworks_of_fronts(path):
    if room(path) not in FLOORS[-1]:
        assert not {module.split(".")[0] for module, _ in imports(path)} & FRONTS_ONLY


@pytest.mark.parametrize("path", modules("adroit_publish"), ids=str)
def test_rules_touch_no_files_network_clock_or_environment(path):
    if room(path) not in PURE:
        return
    for module, name in imports(path):
        impure = module.split(".")[0] in IMPURE or name == "datetime.datetime"
        assert not impure or name in PURE_PARTS or module in PURE_PARTS, f"imports {name}"


@pytest.mark.parametrize("path", modules("adroit_publish"), ids=str)
def test_heavy_packages_are_imported_where_they_are_needed(path):
    top = {module.split(".")[0] for module, _ in imports(path, top_level_only=True)}
    assert not top & HEAVY


@pytest.mark.parametrize("path", modules("adroit"), ids=str)
def test_what_runs_beside_a_model_knows_nothing_of_the_pipeline(path):
    names = {module.split(".")[0] for module, _ in imports(path)}
    assert "adroit_publish" not in names
    if path.is_relative_to(ROOT / "adroit/serving"):
        assert not names & {"boto3", "botocore", "docker", "metaflow", "git", "click", "rich"}


@pytest.mark.parametrize(
    "package",
    [
        name
        for root in (adroit, adroit_publish)
        for _, name, is_package in pkgutil.walk_packages(root.__path__, root.__name__ + ".")
        if is_package
    ],
)
def test_a_folder_says_what_lives_there_and_pins_its_names(package):
    module = importlib.import_module(package)
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)


def test_every_room_of_the_house_has_a_floor():
    assert {room(path) for path in modules("adroit_publish")} <= set(ORDER)


# How much one has to hold in the head.

MOST_MODULES, MOST_MODULE_LINES, MOST_FUNCTION_LINES = 15, 350, 45
FLOWS = ("publish_mlflow_model_flow.py", "republish.py")
SOURCES = [*modules("adroit"), *modules("adroit_publish"), *(ROOT / flow for flow in FLOWS)]


def name_of(path):
    return str(path.relative_to(ROOT))


def lines_of(function):
    """The lines of a function without its decorators and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    first = body[0].lineno if body else function.end_lineno
    return function.body[0].lineno - function.lineno + function.end_lineno - first + 1


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=name_of)
def test_a_folder_has_few_modules(folder):
    count = sum(path.parent == folder for path in SOURCES)
    assert count <= MOST_MODULES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_fits_in_the_head_and_a_function_on_a_screen(path):
    text = path.read_text()
    functions = {
        f"{name_of(path)}:{node.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_of(node) > MOST_FUNCTION_LINES
    }
    assert len(text.splitlines()) <= MOST_MODULE_LINES
    assert functions == set()


def test_modules_import_each_other_in_no_circle():
    """What is imported inside functions, or for types alone, counts too."""
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    below = {
        name: {part for pair in imports(path) for part in pair if part in named} - {name}
        for name, path in named.items()
    }
    seen = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in seen:
            for other in sorted(below[name]):
                visit(other, [*way, name])
            seen.add(name)

    for name in sorted(below):
        visit(name, [])


def test_no_two_classes_have_one_name():
    places = {}
    for path in modules("adroit_publish"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not twice
