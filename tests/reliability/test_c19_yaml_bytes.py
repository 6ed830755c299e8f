"""C19: an edit leaves every byte outside the scalar, or outside the one entry, as it was.

Each generated file is built round a slot for the version, so what the edit has to give is known
without asking the code under test. Every result is read by PyYAML (YAML 1.1) and by ruamel.yaml
(1.1 and 1.2), which have to see the version as the same string and everything else as before.
"""

from __future__ import annotations

import os
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from adroit_publish.config.flavors_edit import clear_hold, set_hold, set_version
from adroit_publish.config.flavors_entries import copy_flavor, delete_flavor
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Mapping
from adroit_publish.errors import ConfigError

FULL = os.environ.get("ADROIT_FULL") == "1"
FLOOR = 10_000 if FULL else 500
READ_BY_ALL_FLOOR = 0.6
ROUNDS_PER_FILE = 50 if FULL else 5
REAL_FLOOR = 10 * ROUNDS_PER_FILE

NUMBERS = (
    "12345678901234567890123456789012",
    "1234567e901234567890123456789012",
    "0b010101010101010101010101010101",
    "0" * 32,
    "00001234567012345670123456701234",
)


@dataclass(frozen=True)
class Case:
    """A file before the edit and as it has to be after it."""

    before: bytes
    after: bytes
    old: str | None
    new: str


def a_version(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return f"v{rng.getrandbits(32):08x}-{rng.getrandbits(48):012x}"
    return f"{rng.getrandbits(128):032x}"


def spelled(version: str, quote: str = "") -> str:
    return f'"{version}"' if not quote and version in NUMBERS else quote + version + quote


def noise(rng: random.Random, name: str) -> list[str]:
    """Lines of a top-level entry that the edit must not touch."""
    return rng.choice(
        [
            [f"# {name}: a comment, mit Ümläuten, 漢字 and 🎉", ""],
            [f"{name}:", "    config: 'it''s a path'   # why", '    conda_env:   "tab\\t"'],
            [f"x-{name}: &{name}", "  config: projects/a/config.yaml", "  <<: {q: 1}"],
            [f"{name}: {{config: a, list: [1, 2.0, yes, ~,], 'k': \"v\"}}"],
            [f"{name}:", "- a", "-   b: [c]", "    d: e"],
            [f"{name}: |+", "   block", "", "     more", "", ""],
            [f"{name}: >-", "  folded", "  text", "", "  end"],
            ["", f'"{name} quoted": plain text', "  on two lines"],
            [f"? {name}", ": version: 0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"],
            [f"{name}: &v{name} 0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c", f"x-{name}: *v{name}"],
            [f"{name}: .nan", f"n{name}: [0o14, 014, 1_000, 12:30:45, 2026-11-01, =, <]"],
            [f"schlüssel_{name}: Ωμέγα"],
        ]
    )


def noises(rng: random.Random, name: str) -> list[str]:
    return [line for i in range(rng.randrange(3)) for line in noise(rng, f"{name}{i}")]


def flavor_lines(rng: random.Random, old: str | None, new: str) -> tuple[list[str], list[str]]:
    """Returns the flavor's lines before and after; the slot is in one of many shapes."""
    pad = " " * rng.choice([1, 2, 2, 2, 3, 4, 8])
    gap = rng.choice([" ", " ", "  ", "     "])
    tail = rng.choice(["", "", "   # a run id: 'x' \"y\" {z}", " # ü"])
    key = rng.choice(["version", "version", "'version'", '"version"', "version "])
    others = [
        f"{pad}config: projects/m/config.yaml",
        f"{pad}conda_env: 'sklearn'  # env",
        f"{pad}tags: [a,",
        f"{pad}  b]",
        f"{pad}# hint",
        f"{pad}note: |",
        f"{pad}   two",
        f"{pad}   lines",
    ]
    others = others[: rng.choice([2, 4, 8])]
    flow = "config: projects/m/config.yaml, conda_env: sklearn"
    head = "my_flavor:"
    if old is None:
        shape = rng.choice(["empty", "null", "missing", "flow", "merge", "alias", "quoted"])
    else:
        shape = rng.choice(
            ["plain", "'", '"', "anchor", "tag", "block", "flow", "next", "aliased", "explicit"]
        )
    quoted = spelled(new)
    was = old or ""  # unquoted even where YAML reads a number: a user may have pasted it so
    slots = {
        "empty": ("", f" {quoted}"),
        "null": (gap + rng.choice(["~", "null", "NULL", "Null"]), gap + quoted),
        "quoted": (f"{gap}''", f"{gap}'{new}'"),
        "plain": (gap + was, gap + quoted),
        "'": (f"{gap}'{old}'", f"{gap}'{new}'"),
        '"': (f'{gap}"{old}"', f'{gap}"{new}"'),
        "anchor": (f"{gap}&mine {was}", f"{gap}&mine {quoted}"),
        "tag": (f"{gap}!!str {was}", f"{gap}!!str {quoted}"),
        "aliased": (f"{gap}*shared", gap + quoted),
    }
    if shape in slots:
        before, after = slots[shape]
        lines = [[head, *others, f"{pad}{key}:{slot}{tail}"] for slot in (before, after)]
        if shape == "aliased":
            lines = [[f"x-shared: &shared {was}", *side] for side in lines]
        return lines[0], lines[1]
    if shape == "next":
        sides = [[head, f"{pad}{key}:{tail}", f"{pad}  {s}{tail}", *others] for s in (was, quoted)]
    elif shape == "explicit":
        sides = [[head, f"{pad}? {key}", f"{pad}: {s}{tail}", *others] for s in (was, quoted)]
    elif shape == "block":
        block = [f"{pad}{key}: |{tail}", f"{pad}    {old}"]
        sides = [[head, *block, *others], [head, f"{pad}{key}: {quoted}{tail}", *others]]
    elif shape == "flow" and old:
        sides = [[f"{head} {{ {flow}, version: {s} }}{tail}"] for s in (was, quoted)]
    elif shape == "flow":
        sides = [[f"{head} {{{flow}{s}}}{tail}"] for s in ("", f", version: {quoted}")]
    elif shape == "alias":
        base = ["x-base: &base", *others]
        sides = [
            [*base, f"{head} *base{tail}"],
            [*base, f"{head} {{<<: *base, version: {quoted}}}{tail}"],
        ]
    else:
        lead = ["x-base: &base {note: 1}"] if shape == "merge" else []
        merge = [f"{pad}<<: *base{tail}"] if shape == "merge" else []
        body = [*lead, head, *others, *merge]
        end = [f"{pad}# below"] if rng.random() < 0.3 and not others[-1].endswith("lines") else []
        sides = [[*body, *end], [*body, f"{pad}version: {quoted}", *end]]
    return sides[0], sides[1]


def a_case(rng: random.Random) -> Case:
    new = a_version(rng)
    old = None if rng.random() < 0.4 else a_version(rng)
    if old == new:
        old = None
    before, after = flavor_lines(rng, old, new)
    lead = [line for i in range(rng.randrange(4)) for line in noise(rng, f"n{i}")]
    rest = [line for i in range(rng.randrange(4)) for line in noise(rng, f"r{i}")]
    start = ["---"] if rng.random() < 0.2 else []
    end = ["..."] if start and rng.random() < 0.3 else []
    eol = rng.choice(["\n", "\n", "\n", "\r\n", "\r\n", "\r"])
    bom = "\ufeff" if rng.random() < 0.1 else ""
    # A block scalar at the very end has its own test: there the version goes to the top.
    closed = (rest and not end) or before[-1].endswith("lines")
    last = eol if closed or rng.random() < 0.8 else ""
    sides = [
        (bom + eol.join([*start, *lead, *side, *rest, *end]) + last).encode()
        for side in (before, after)
    ]
    return Case(sides[0], sides[1], old, new)


def readings(data: bytes) -> list[Any] | None:
    """What PyYAML and ruamel.yaml read by 1.1 and 1.2; None where one of them cannot."""
    text = data.decode("utf-8-sig")
    found = []
    try:
        found.append(yaml.safe_load(text))
        for version in ((1, 1), (1, 2)):
            loader = YAML(typ="safe", pure=True)
            loader.version = version
            found.append(loader.load(text))
    except (yaml.YAMLError, YAMLError, ValueError, TypeError):
        return None
    return found


def violations(before: bytes, after: bytes, flavor: str, new: str) -> list[str]:
    """How the readers' views of a file before and after an edit differ from what is right."""
    old_views, new_views = readings(before), readings(after)
    if old_views is None:
        return []
    if new_views is None:
        return ["a reader that could read the file before cannot read it now"]
    wrong = []
    for old_view, new_view in zip(old_views, new_views, strict=True):
        got = new_view[flavor].pop("version", None)
        if got != new or type(got) is not str:
            wrong.append(f"read as {got!r}")
        old_view[flavor].pop("version", None)
        if repr(old_view) != repr(new_view):
            wrong.append("another value changed")
    return wrong


@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.MantissaNoDotYAML1_1Warning")
def test_every_byte_outside_the_scalar_stays_in_generated_files(capsys: Any) -> None:
    rng = random.Random(19)
    wrong, read_by_all = [], 0
    for number in range(FLOOR):
        case = a_case(rng)
        got = set_version(case.before, "my_flavor", case.new, expected=case.old)
        if got != case.after:
            wrong.append(f"{number}: {case.before!r}\n  gave   {got!r}\n  wanted {case.after!r}")
        seen = readings(case.before)
        read_by_all += seen is not None
        for violation in violations(case.before, got, "my_flavor", case.new):
            wrong.append(f"{number}: {violation}: {case.before!r} -> {got!r}")
    with capsys.disabled():
        print(f"\nC19 generated injected={FLOOR} fired={FLOOR} violations={len(wrong)}")
    assert not wrong, "\n".join(wrong[:5])
    assert read_by_all >= FLOOR * READ_BY_ALL_FLOOR


@settings(
    max_examples=1000 if FULL else 60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(
    comment=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner),
        max_leaves=6,
    ),
    style=st.sampled_from([None, False, True]),
    seed=st.integers(0, 2**32),
)
def test_whatever_stands_beside_a_flavor_stays(
    comment: str, value: Any, style: bool | None, seed: int
) -> None:
    new = a_version(random.Random(seed))
    beside = yaml.safe_dump({"x-one": value}, default_flow_style=style, allow_unicode=True)
    tail = yaml.safe_dump({"x-two": value}, default_flow_style=style)
    if beside.startswith("{"):
        beside, tail = "x-one: " + beside[7:].strip()[:-1] + "\n", ""
    lead = f"{beside}# {comment}\nmy_flavor:\n  config: a\n  version: "
    rest = f" # {comment}\n{tail}"
    before, after = (lead + "~" + rest).encode(), (lead + spelled(new) + rest).encode()
    try:
        read_yaml(before, "flavors.yaml")
    except ConfigError:
        return  # characters that YAML does not permit unescaped
    assert set_version(before, "my_flavor", new, expected=None) == after


@dataclass(frozen=True)
class Placed:
    """A file by its parts: what is before a flavor's lines, those lines, and what is after."""

    lead: str
    block: str
    rest: str
    version: str | None

    @property
    def data(self) -> bytes:
        return (self.lead + self.block + self.rest).encode()


def a_placed_flavor(rng: random.Random) -> Placed:
    """A flavor with comments of its own between comments and empty lines that are not its own."""
    version = None if rng.random() < 0.3 else a_version(rng)
    lines, _ = flavor_lines(rng, version, a_version(rng))
    head = next(i for i, line in enumerate(lines) if line.startswith("my_flavor:"))
    shared, own = lines[:head], lines[head:]
    in_block_scalar = own[-1].endswith("lines")
    deeper = (
        []
        if in_block_scalar
        else rng.choice([[], ["  # of mine"], ["", "  # of mine", " # of mine"]])
    )
    comments = rng.choice([[], ["# of mine"], ["# of mine: ü", "#of mine, 'too'"]])
    last = rng.choice([["n: 1  # not mine\t"], ["n:", "  a: {b: 1}", "  # not mine"], ["n: 1", ""]])
    above = [*noises(rng, "n"), *last]
    heading = rng.choice(
        [[], ["# The heading."], ["# The heading.", ""], ["---"], ["--- # c", "#"]]
    )
    beside = rng.choice([[], [""], ["", "# not mine", ""], ["# not mine"], ["#", "  # neither"]])
    below = [*beside, *noises(rng, "r")]
    if heading[:1] and heading[0].startswith("---") and rng.random() < 0.3:
        below.append("...")
    eol = rng.choice(["\n", "\n", "\r\n", "\r"])
    bom = "\ufeff" if rng.random() < 0.1 else ""
    parts = [
        "".join(line + eol for line in part)
        for part in ([*heading, *above, *shared], [*comments, *own, *deeper], below)
    ]
    if not parts[2] and not in_block_scalar and rng.random() < 0.5:
        parts[1] = parts[1].removesuffix(eol)
    return Placed(bom + parts[0], parts[1], parts[2], version)


def deletions(placed: Placed) -> set[bytes]:
    """The file without the flavor's lines, with any number of the empty lines beside them."""
    before, after = [placed.lead], [placed.rest]
    while before[-1] != (shorter := re.sub(r"(?<=[\r\n])[ \t]*(\r\n|\r|\n)\Z", "", before[-1])):
        before.append(shorter)
    while after[-1] != (shorter := re.sub(r"\A[ \t]*(\r\n|\r|\n)", "", after[-1])):
        after.append(shorter)
    return {(start + end).encode() for start in before for end in after}


@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.MantissaNoDotYAML1_1Warning")
def test_whole_entries_come_and_go_and_every_other_byte_stays(capsys: Any) -> None:
    rng = random.Random(192)
    wrong, fired = [], 0
    for number in range(FLOOR):
        placed = a_placed_flavor(rng)
        data, new = placed.data, f"v{rng.getrandbits(32):08x}-{rng.getrandbits(48):012x}"
        left = delete_flavor(data, "my_flavor", expected=placed.version)
        if left not in deletions(placed):
            wrong.append(f"{number}: deleted: {data!r}\n  gave {left!r}")
        both = copy_flavor(data, "my_flavor", "copy", new, expected=placed.version)
        blocks = [len((placed.lead + placed.block).encode()), len(data) + 1]
        if not any(
            both.startswith(data[:at]) and both.endswith(data[at:]) for at in range(*blocks)
        ):
            wrong.append(f"{number}: copied: {data!r}\n  gave {both!r}")
        mine = placed.block.count("of mine")
        if both.decode().count("of mine") != data.decode().count("of mine") + mine:
            wrong.append(f"{number}: comments copied: {data!r}\n  gave {both!r}")
        again = delete_flavor(both, "copy", expected=new)
        if again.split() != data.split():
            wrong.append(f"{number}: copied and deleted: {data!r}\n  gave {again!r}")
        held = set_hold(data, "my_flavor", "why: 'x' # y")
        if clear_hold(held, "my_flavor") != data and b": *base" not in data:
            wrong.append(f"{number}: held and not: {data!r}\n  gave {held!r}")
        was = readings(data)
        for result, name in ((left, "my_flavor"), (both, "copy"), (held, "my_flavor")):
            if was is not None:
                fired += 1
                now = readings(result)
                views = now and [
                    {k: v for k, v in (view or {}).items() if k != name} for view in now
                ]
                wanted = [{k: v for k, v in view.items() if k != name} for view in was]
                if repr(views) != repr(wanted):
                    wrong.append(f"{number}: another value: {data!r}\n  gave {result!r}")
    with capsys.disabled():
        print(f"\nC19 entries injected={5 * FLOOR} fired={fired} violations={len(wrong)}")
    assert not wrong, "\n".join(wrong[:5])
    assert fired >= 2 * FLOOR


def real_files() -> Iterator[Path]:
    site = Path(sysconfig.get_paths()["purelib"])
    for path in sorted([*site.rglob("*.yaml"), *site.rglob("*.yml")]):
        if path.stat().st_size < 64_000:
            yield path


def test_every_byte_outside_the_scalar_stays_in_files_of_installed_packages(capsys: Any) -> None:
    rng = random.Random(191)
    tried, wrong = 0, []
    for path in real_files():
        real = path.read_bytes()
        eol = b"\r\n" if b"\r\n" in real else b"\n"
        real = real if real.endswith(eol) else real + eol
        nested = b"x-real:" + eol + b"".join(b"  " + line for line in real.splitlines(True))
        for data in (real, nested) * ROUNDS_PER_FILE:
            new = a_version(rng)
            before, after = (
                eol.join([line.encode() for line in side]) for side in flavor_lines(rng, None, new)
            )
            try:
                document = read_yaml(data + before + eol, str(path))
            except ConfigError:
                continue  # several documents, tags, too large: refused before any edit
            if not isinstance(document.root, Mapping):
                continue
            tried += 1
            got = set_version(data + before + eol, "my_flavor", new, expected=None)
            if got != data + after + eol:
                wrong.append(f"{path}: {before!r}")
            for violation in violations(data + before + eol, got, "my_flavor", new):
                wrong.append(f"{path}: {violation}")
    with capsys.disabled():
        print(f"\nC19 installed injected={tried} fired={tried} violations={len(wrong)}")
    assert not wrong, "\n".join(wrong[:5])
    assert tried >= REAL_FLOOR
