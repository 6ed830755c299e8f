"""What modules import, and where each import is found."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from adroit.import_closure import ModuleFiles, import_closure

ENV = frozenset({"numpy", "os", "sys", "typing", "importlib", "contextlib", "google"})


def closure(texts, *start, environment=ENV, roots=("",)):
    files = ModuleFiles({p: dedent(text).encode() for p, text in texts.items()}, roots)
    return import_closure(files, start, environment)


def missing(texts, *start, **options):
    return [each.module for each in closure(texts, *start, **options).missing]


def missing_of(statements, *, more=(), **options):
    """What a module ``shop.main`` with these statements is missing."""
    texts = {"shop/main.py": statements} | dict.fromkeys(more, "")
    return missing(texts, "shop.main", **options)


def test_imports_are_followed_through_the_files_and_end_in_the_environment():
    found = closure(
        {
            "shop/__init__.py": "import os\n",
            "shop/main.py": "import numpy.linalg\nfrom shop.scores import score\n",
            "shop/scores.py": "from . import weights\nfrom .deep.er import x\n",
            "shop/weights.py": "",
            "shop/deep/er.py": "import typing\n",
            "shop/train.py": "import torch\n",
        },
        "shop.main",
    )
    assert found.files == (
        "shop/__init__.py",
        "shop/deep/er.py",
        "shop/main.py",
        "shop/scores.py",
        "shop/weights.py",
    )
    assert found.external == ("numpy", "os", "typing")
    assert found.missing == ()


def test_a_missing_module_is_named_with_file_and_line():
    found = closure({"shop/main.py": "import os\n\nimport torch.nn\n"}, "shop.main")
    (one,) = found.missing
    assert (one.module, one.file, one.line) == ("torch", "shop/main.py", 3)


def test_a_module_that_it_starts_at_and_is_nowhere_is_missing():
    assert missing({}, "shop.main") == ["shop"]
    assert missing({"shop/other.py": ""}, "shop.main") == ["shop.main"]
    assert missing({}, "numpy.linalg") == []


@pytest.mark.parametrize(
    ("statements", "gone"),
    [
        ("import shop.a", ["shop.a"]),
        ("from shop import a, b", ["shop.a", "shop.b"]),
        ("from . import a", ["shop.a"]),
        ("from .a import b", ["shop.a"]),
        ("from .. import a", [".."]),
        ("def f():\n    import torch", ["torch"]),
        ("if DEBUG:\n    import torch", ["torch"]),
        ("class C:\n    from torch import nn", ["torch"]),
        ("async def f():\n    async with x:\n        import torch", ["torch"]),
        ("import importlib\nimportlib.import_module('torch.nn')", ["torch"]),
        (
            "from importlib import import_module\nimport_module('.a', package=__package__)",
            ["shop.a"],
        ),
        ("from importlib import import_module\nimport_module('.a', 'shop')", ["shop.a"]),
        ("__import__('torch')", ["torch"]),
        ("x = [__import__('torch') for _ in y]", ["torch"]),
        ("import importlib\nimportlib.import_module(name)", []),
        ("import importlib\nimportlib.import_module('.a', package=name)", []),
        ("import importlib\nimportlib.import_module('torch', package=name)", ["torch"]),
    ],
)
def test_every_form_of_import_counts(statements, gone):
    assert missing_of(statements) == gone


@pytest.mark.parametrize(
    "statements",
    [
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "try:\n    import torch\nexcept (ValueError, ModuleNotFoundError):\n    pass",
        "try:\n    import torch\nexcept Exception:\n    torch = None",
        "try:\n    import torch\nexcept:\n    torch = None",
        "try:\n    import torch\nexcept ImportError:\n    pass\nelse:\n    import torch.nn",
        "try:\n    import torch\nexcept ImportError:\n    import numpy",
        "try:\n    import numpy\nexcept ImportError:\n    import torch",
        "try:\n    import tensorflow\nexcept ImportError:\n    try:\n        import torch\n"
        "    except ImportError:\n        import numpy",
        "from contextlib import suppress\nwith suppress(ImportError):\n    import torch",
        "import contextlib\nwith contextlib.suppress(Exception):\n    import torch",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "import typing\nif not typing.TYPE_CHECKING:\n    import numpy\nelse:\n    import torch",
        "if __name__ == '__main__':\n    import torch",
        "import sys\nif sys.version_info >= (3, 20):\n    import torch",
        "import sys\nif sys.platform == 'win32':\n    import winreg",
        "from importlib.util import find_spec\nif find_spec('torch'):\n    import torch",
    ],
)
def test_an_import_that_may_fail_is_not_missed(statements):
    assert missing_of(statements) == []


@pytest.mark.parametrize(
    "statements",
    [
        "try:\n    import torch\nexcept ImportError as e:\n    raise OSError('no torch') from e",
        "try:\n    import torch\nfinally:\n    pass",
        "try:\n    import torch\nexcept ValueError:\n    pass",
        "try:\n    import torch\n    score()\nexcept Exception:\n    pass",
        "try:\n    import tensorflow\nexcept ImportError:\n    import torch",
        "try:\n    score()\nexcept Exception:\n    import torch",
        "from contextlib import suppress\nwith suppress(KeyError):\n    import torch",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import torch",
    ],
)
def test_an_import_that_only_looks_as_if_it_may_fail_is_missed(statements):
    assert missing_of(statements) == ["torch"]


def test_a_name_that_a_package_binds_is_no_module():
    bound = {
        "lib/__init__.py": """
            from os import path
            import numpy as np
            A = 1
            def f(): ...
            class C: ...
            for i in (): ...
        """,
    }
    names = "from lib import A, f, C, path, np, i, __file__"
    assert missing(bound | {"main.py": names}, "main") == []
    assert missing(bound | {"main.py": "from lib import B"}, "main") == ["lib.B"]


@pytest.mark.parametrize(
    "init", ["from numpy import *", "def __getattr__(name): ...", "globals()['B'] = 1"]
)
def test_a_package_that_may_bind_anything_is_believed(init):
    assert missing({"lib/__init__.py": init, "main.py": "from lib import B"}, "main") == []


def test_a_name_taken_from_a_module_that_is_no_package_is_not_looked_at():
    assert missing({"lib.py": "", "main.py": "from lib import x"}, "main") == []
    assert missing({"lib.py": "", "main.py": "import lib.x"}, "main") == ["lib.x"]


def test_directories_without_init_are_packages_and_may_go_on_in_the_environment():
    texts = {"google/own/x.py": "", "main.py": "import google.own.x\nimport google.protobuf"}
    assert missing(texts, "main") == []
    assert missing(texts, "main", environment=ENV - {"google"}) == ["google.protobuf"]


def test_the_first_root_wins_and_a_package_with_init_is_all_in_one_place():
    texts = {
        "new/shop/a.py": "",
        "old/shop/a.py": "import torch",
        "old/shop/b.py": "",
        "main.py": "from shop import a, b",
    }
    roots = ("", "new", "old")
    found = closure(texts, "main", roots=roots)
    assert found.files == ("main.py", "new/shop/a.py", "old/shop/b.py")
    closed = texts | {"new/shop/__init__.py": ""}
    assert missing(closed, "main", roots=roots) == ["shop.b"]


def test_an_extension_module_is_a_module():
    files = {"shop/fast.cpython-311-x86_64-linux-gnu.so": ""}
    assert missing(files | {"main.py": "from shop import fast"}, "main") == []
    # It can make modules below itself, as hypothesis._native does.
    assert missing(files | {"main.py": "import shop.fast.inner"}, "main") == []


def test_a_file_can_be_started_at_by_its_path():
    texts = {"model/model.py": "import shop.a\nfrom . import b", "src/shop/a.py": "import torch"}
    # Loaded by path, it is in no package.
    assert missing(texts, "model/model.py", roots=("src",)) == [".", "torch"]


def test_where_nobody_knows_the_environment_only_own_packages_can_lack_something():
    statements = "import anything.at.all\nimport shop.a\nfrom . import b"
    assert missing_of(statements, environment=None) == ["shop.a", "shop.b"]


def test_a_file_that_is_no_python_is_unreadable_and_stops_nothing():
    texts = {
        "main.py": "import a, b, c, d",
        "a.py": "def broken(:",
        "b.py": "x = '\0'",
        "c.py": "x = " + "(" * 5000 + ")" * 5000,
        "d.py": "import torch",
    }
    found = closure(texts, "main")
    assert found.unreadable == ("a.py", "b.py", "c.py")
    assert [m.module for m in found.missing] == ["torch"]


def test_modules_that_import_each_other_come_to_an_end():
    assert closure({"a.py": "import b", "b.py": "import a"}, "a").files == ("a.py", "b.py")


def test_python_itself_agrees_on_what_is_missing(tmp_path):
    """Each case is imported for real; the closure has something missing where that fails."""
    cases = [
        ({"m.py": "from p import a", "p/__init__.py": "", "p/a.py": ""}, True),
        ({"m.py": "from p import a", "p/__init__.py": ""}, False),
        ({"m.py": "from p import a", "p/a.py": "from . import b"}, False),
        ({"m.py": "from p import a", "p/a.py": "from .b.c import d", "p/b/c.py": "d = 1"}, True),
        ({"m.py": "import p.a.b", "p/a.py": ""}, False),
        ({"m.py": "from .x import y"}, False),
        ({"m.py": "import p.q", "p.py": "", "p/q.py": ""}, False),
        ({"m.py": "import p.q", "p.py": "", "p/__init__.py": "", "p/q.py": ""}, True),
        ({"p/m.py": "from ..q import y", "q.py": "y = 1"}, False),
        (
            {"p/m.py": "import importlib; importlib.import_module('..q.r', 'p.m')", "p/q.py": ""},
            False,
        ),
    ]
    for number, (texts, works) in enumerate(cases):
        root = tmp_path / str(number)
        for path, text in texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        start = "m" if "m.py" in texts else "p.m"
        done = subprocess.run(
            [sys.executable, "-S", "-c", f"import {start}"], cwd=root, check=False
        )
        said = missing(texts, start, environment=sys.stdlib_module_names)
        assert (done.returncode == 0, not said) == (works, works), (texts, said)
