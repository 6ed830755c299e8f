"""C20: hostile files and names are refused with file and line, within 1 s and 100 MB."""

from __future__ import annotations

import os
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from adroit_publish.config.conda_envs import parse_conda_envs
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_edit import set_version
from adroit_publish.config.project import parse_project
from adroit_publish.config.targets import parse_targets
from adroit_publish.config.yaml.tree import MAX_BYTES, MAX_NODES
from adroit_publish.errors import ConfigError, RefusedError

FULL = os.environ.get("ADROIT_FULL") == "1"
TIME_LIMIT_S = 1.0
MEMORY_LIMIT_BYTES = 100 * 1024 * 1024
FUZZ_FILES = 5_000 if FULL else 300

F = "f:\n  config: projects/m/config.yaml\n  conda_env: s\n"
RUN = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"
BOMB = "x-0: &a0 [z, z, z, z, z, z, z, z, z]\n" + "".join(
    f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGE_BOMB = "x-0: &a0 {k: v}\n" + "".join(
    f"x-{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
CHAIN = "x-0: &a0 [z]\n" + "".join(f"x-{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))

# Those whose memory is measured, which is slow.
LARGE = {"alias bomb", "merge bomb", "too many values", "100 MB of flavors", "just too large"}

# name: (file, line of the problem; 0 where the file as a whole is refused)
FLAVORS: dict[str, tuple[bytes | str, int]] = {
    "python object": (F + "  version: !!python/object/apply:os.system [id]\n", 4),
    "python name": (F + "  version: !!python/name:os.system\n", 4),
    "local tag": (F + "  version: !secret x\n", 4),
    "binary tag": (F + "  version: !!binary aGk=\n", 4),
    "int tag": (F + "  version: !!int 5\n", 4),
    "set tag": (F + "  x-a: !!set {a}\n", 4),
    "omap tag": (F + "  x-a: !!omap [a: b]\n", 4),
    "verbatim tag": (F + "  version: !<tag:yaml.org,2002:python/none> ''\n", 4),
    "str tag on a mapping": ("f: !!str {config: a}\n", 1),
    "map tag on a scalar": (F + "  version: !!map x\n", 4),
    "tag on a key": (F + "  !!python/none version: x\n", 4),
    "tag handle without directive": (F + "  version: !e!x y\n", 4),
    "TAG directive": ("%TAG !e! tag:example.com,2000:\n---\n" + F, 1),
    "YAML directive": ("%YAML 1.1\n---\n" + F, 1),
    "alias bomb": (BOMB + F, 6),
    "merge bomb": (MERGE_BOMB + F, 11),
    "alias chain": (CHAIN + F, 64),
    "alias into itself": ("f: &a\n  config: *a\n", 2),
    "merge of itself": ("f: &a\n  <<: *a\n", 2),
    "unknown alias": (F + "  version: *nowhere\n", 4),
    "alias before its anchor": ("f: *a\nx-a: &a {config: b}\n", 1),
    "merge of a scalar": ("f:\n  <<: text\n", 2),
    "merge of a list of scalars": ("f:\n  <<: [a, b]\n", 2),
    "deep brackets": ("f:\n  x: " + "[" * 5_000 + "\n", 2),
    "deep braces": ("f:\n  x: " + "{a: " * 5_000 + "\n", 2),
    "deep dashes": ("f:\n  x:\n    " + "- " * 5_000 + "\n", 3),
    "deep mappings": ("".join(f"{' ' * n}a:\n" for n in range(600)), 64),
    "deep question marks": ("? " * 5_000 + "\n", 1),
    "brackets without end": ("[" * (MAX_BYTES - 1), 1),
    "too many values": ("f:\n  x: [" + "1," * (MAX_NODES + 5) + "]\n", 2),
    "100 MB of spaces": (b" " * 100_000_000, 0),
    "100 MB of flavors": (F.encode() * (100_000_000 // len(F)), 0),
    "just too large": (b"#" + b" " * MAX_BYTES, 0),
    "NUL": (F + "  version: a\0b\n", 4),
    "NUL alone": ("\0", 1),
    "escape character": (F + "  version: \x1b[31mred\n", 4),
    "delete character": (F + "# \x7f\n", 4),
    "C1 control": (F + "  artifact: \x80\n", 4),
    "noncharacter": (F + "  artifact: \uffff\n", 4),
    "second byte order mark": ("\ufeff\ufeff" + F, 1),
    "byte order mark inside": (F + "\ufeffg:\n  config: a/b.yaml\n", 4),
    "UTF-16": (b"\xff\xfe" + F.encode("utf-16-le"), 1),
    "UTF-16 big end first": (F.encode("utf-16"), 1),
    "UTF-32": (b"\xff\xfe\x00\x00" + F.encode("utf-32-le"), 1),
    "latin-1": (F.encode() + "  artifact: Käse\n".encode("latin-1"), 4),
    "overlong UTF-8": (F.encode() + b"  artifact: \xc0\xaf\n", 4),
    "surrogate in UTF-8": (F.encode() + b"  artifact: \xed\xa0\x80\n", 4),
    "escaped surrogate": (F + '  artifact: "\\ud800"\n', 4),
    "escape beyond Unicode": (F + '  artifact: "\\UFFFFFFFF"\n', 0),
    "cut in a character": (F.encode() + b"  artifact: \xe2\x82", 4),
    "duplicate key": (F + "  config: b/c.yaml\n", 4),
    "duplicate flavor": (F + F, 4),
    "duplicate in other quotes": (F + '  "conf\\x69g": b/c.yaml\n', 4),
    "duplicate in foreign keys": (F + "  x-a: {b: 1, b: 2}\n", 4),
    "two documents": (F + "---\n" + F, 4),
    "mapping as a key": ("{a: b}: c\n", 1),
    "list as a key": ("? [a, b]\n: c\n", 1),
    "alias of a list as a key": ("x-a: &a [1]\n*a : c\n", 2),
    "list of flavors": ("- f\n- g\n", 1),
    "a word": ("flavors\n", 1),
    "tab indent": ("f:\n\tconfig: a\n", 2),
    "open quote": (F + "  version: 'abc\n", 5),
    "open bracket": (F + "  x-a: [1, 2\n", 5),
    "flavor is a list": ("f: [config]\n", 1),
    "flavor is a word": ("f: config\n", 1),
    "flavor is nothing": ("f:\n", 1),
    "name steps up": ("../f:\n  config: a/b.yaml\n  conda_env: s\n", 1),
    "name is dots": ("..:\n  config: a/b.yaml\n  conda_env: s\n", 1),
    "name has a slash": ("a/b:\n  config: a/b.yaml\n  conda_env: s\n", 1),
    "name has a comma": ('"a,b":\n  config: a/b.yaml\n  conda_env: s\n', 1),
    "name is an option": ("--help:\n  config: a/b.yaml\n  conda_env: s\n", 1),
    "name has a line break": ('"a\\nb":\n  config: a/b.yaml\n  conda_env: s\n', 1),
    "name is empty": ('"":\n  config: a/b.yaml\n  conda_env: s\n', 1),
    "name is endless": ("n" * 900 + ":\n  config: a/b.yaml\n  conda_env: s\n", 1),
    "name has a right-to-left mark": ('"a\\u202eb":\n  config: a/b.yaml\n  conda_env: s\n', 1),
    "name is not composed": ('"u\\u0308":\n  config: a/b.yaml\n  conda_env: s\n', 1),
    "config steps up": ("f:\n  config: ../m/config.yaml\n  conda_env: s\n", 2),
    "config steps up inside": ("f:\n  config: a/../../m/config.yaml\n  conda_env: s\n", 2),
    "config is absolute": ("f:\n  config: /etc/config.yaml\n  conda_env: s\n", 2),
    "config is at home": ("f:\n  config: ~/config.yaml\n  conda_env: s\n", 2),
    "config has a drive": ("f:\n  config: 'C:/m/config.yaml'\n  conda_env: s\n", 2),
    "config has backslashes": ("f:\n  config: a\\..\\config.yaml\n  conda_env: s\n", 2),
    "config has a line break": ('f:\n  config: "a/b\\n.yaml"\n  conda_env: s\n', 2),
    "config has a NUL": ('f:\n  config: "a/b\\0.yaml"\n  conda_env: s\n', 2),
    "config is a list": ("f:\n  config: [a/b.yaml]\n  conda_env: s\n", 2),
    "env steps up": ("f:\n  config: a/b.yaml\n  conda_env: ../s\n", 3),
    "version steps up": (F + "  version: ../../v5f2b9c01-3f0c9a1b2c3d\n", 4),
    "version with a line break": (F + f'  version: "{RUN}\\n"\n', 4),
    "version in other digits": (F + "  version: " + "٣" * 32 + "\n", 4),
    "version is a list": (F + f"  version: [{RUN}]\n", 4),
    "version is a number": (F + "  version: 1.10\n", 4),
    "artifact with a line break": (F + '  artifact: "a\\nb"\n', 4),
    "near misses": (F + "".join(f"  versio{n}: 1\n" for n in range(9_000)), 4),
    "foreign keys": (F + "".join(f"  zersxo{n}: 1\n" for n in range(9_000)) + "  hodl: 1\n", 9_004),
    "colon without a space": ("f: {config: a/b.yaml, version:}\n", 1),
}

PROJECTS: dict[str, tuple[str, int]] = {
    "include steps up": ("source:\n  include: [../x]\n", 2),
    "include is absolute": ("source:\n  include: [/etc]\n", 2),
    "include is everything": ("source:\n  include: [.]\n", 2),
    "class path is a path": ("serve:\n  handler:\n    class_path: ../x.py:Y\n", 3),
    "kwargs not finite": ("serve:\n  handler:\n    class_path: a:B\n    kwargs: {a: .nan}\n", 4),
    "kwargs overflow": ("serve:\n  handler:\n    class_path: a:B\n    kwargs: {a: 1e999}\n", 4),
    "catastrophic pattern": (f"source:\n  exclude: ['{'*a' * 40}[']\n  inclde: 1\n", 3),
}

TARGETS: dict[str, tuple[str, int]] = {
    "deep arrays": ("x = " + "[" * 20_000, 0),
    "deep tables": ("x = " + "{a = " * 20_000, 0),
    "deep dotted key": ("a." * 100_000 + "a = 1\n", 1),
    "deep dotted table": ("# c\n[" + "a." * 100_000 + "a]\n", 2),
    "deep dotted key inside": ("x = {" + "a . " * 50_000 + "a = 1}\n", 1),
    "arrays beyond the limit": ("x = " + "[" * 70 + "]" * 70, 0),
    "endless number": ("x = " + "9" * 5_000, 0),
    "too many values": ("x = [" + "1," * (MAX_NODES + 5) + "]\n", 0),
    "too many keys": ("".join(f"k{n} = 1\n" for n in range(MAX_NODES)), 0),
    "near misses": ("[targets.a]\n" + "".join(f"bundle{n} = 1\n" for n in range(15_000)), 2),
    "just too large": ("#" + " " * MAX_BYTES, 0),
    "latin-1": ("# c\n# K\udce4se\n", 2),
    "NUL": ('[targets.a]\nbundles = "a\0"\n', 2),
    "duplicate": ("[targets.a]\n[targets.a]\n", 2),
    "path in a name": ('[targets."../a"]\ntracking_uri="databricks"\nbundles="file:b"\n', 0),
    "password": ('[targets.a]\nbundles="file:b"\ntracking_uri="https://u:hunter2@h/"\n', 3),
}


def refusal(parse: Callable[[], object]) -> tuple[ConfigError | None, float]:
    """What a parse raises, and in how many seconds of this thread, whatever else runs."""
    started = time.thread_time()
    error = None
    try:
        parse()
    except ConfigError as caught:
        error = caught
    return error, time.thread_time() - started


def peak_bytes(parse: Callable[[], object]) -> int:
    """How many bytes a parse holds at most, above what was held before."""
    tracemalloc.start()
    try:
        with suppress(ConfigError):
            parse()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def cases() -> list[tuple[str, Callable[[], object], str, int]]:
    rows: list[tuple[str, Callable[[], object], str, int]] = []
    for name, (text, line) in FLAVORS.items():
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        rows.append((name, lambda data=data: parse_flavors(data, "F"), "F", line))
        rows.append((name, lambda data=data: parse_conda_envs(data, "E"), "E", -1))
    for name, (text, line) in PROJECTS.items():
        body = text.encode() + b"model_name: m\n"
        rows.append((name, lambda body=body: parse_project(body, "P", "m"), "P", line))
    for name, (text, line) in TARGETS.items():
        toml = text.encode(errors="surrogateescape")
        rows.append((name, lambda toml=toml: parse_targets(toml, "T", "/b"), "T", line))
    return rows


def test_every_hostile_file_is_refused_with_file_and_line(capsys: Any) -> None:
    wrong, fired = [], 0
    rows = cases()
    for name, parse, file, line in rows:
        error, seconds = refusal(parse)
        if seconds > TIME_LIMIT_S:  # a core that is shared counts more; what is slow is slow again
            seconds = min(seconds, *(refusal(parse)[1] for _ in range(2)))
        if line >= 0:  # what is hostile in flavors.yaml may be harmless in conda_envs.yaml
            place = rf"^{file}:{line}: " if line else rf"^{file}: "
            if error is None:
                wrong.append(f"{file} {name}: accepted")
            elif not re.search(place, str(error), re.MULTILINE):
                wrong.append(f"{file} {name}: line {line} is not in: {str(error)[:300]}")
            elif "hunter2" in str(error) or len(str(error)) > 20_000:
                wrong.append(f"{file} {name}: the message says too much")
        fired += error is not None
        if seconds > TIME_LIMIT_S:
            wrong.append(f"{file} {name}: {seconds:.2f} s")
        if file == "F" and name in LARGE and peak_bytes(parse) > MEMORY_LIMIT_BYTES:
            wrong.append(f"{file} {name}: {peak_bytes(parse):,} bytes")
    with capsys.disabled():
        print(f"\nC20 injected={len(rows)} fired={fired} violations={len(wrong)}")
    assert not wrong, "\n".join(wrong)
    assert len(FLAVORS) + len(PROJECTS) + len(TARGETS) >= 60
    assert fired >= 60


def test_random_damage_gives_a_value_or_a_config_error_and_nothing_else() -> None:
    rng = random.Random(20)
    whole = (
        f"x-d: &d {{a: [1, 2]}}\nf: &f\n  config: 'a/b.yaml'  # c\n  conda_env: s\n"
        f'  version: {RUN}\ng:\n  <<: *f\n  note: |\n    t\n  artifact: "q\\u00fc"\n'
    ).encode()
    alphabet = b"\x00\t\n\r &*!|>'\"%@`#,[]{}:?-<=~\\\xff\xc3\xa9aevU0189x"
    refused = 0
    for _ in range(FUZZ_FILES):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = bytes(rng.choices(alphabet, k=rng.randrange(3)))
        try:
            parse_flavors(bytes(data))
        except ConfigError:
            refused += 1
        with suppress(ConfigError, RefusedError):
            set_version(bytes(data), "f", "v5f2b9c01-3f0c9a1b2c3d", expected=RUN)
    assert 0 < refused < FUZZ_FILES


@pytest.mark.parametrize(
    "filler", ["x", "x ", "# y\n", "\n", " ", "a: ", "'", "- ", "&a ", "!", "%"]
)
def test_the_largest_file_of_one_character_takes_no_second(filler: str) -> None:
    data = (filler * MAX_BYTES)[: MAX_BYTES - 1].encode()
    _, seconds = refusal(lambda: parse_flavors(data))
    assert seconds < TIME_LIMIT_S
