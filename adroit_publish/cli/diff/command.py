"""The command that shows how two versions differ."""

from __future__ import annotations

from pathlib import Path

import click

from adroit_publish.cli.diff.page import page
from adroit_publish.cli.diff.sections import line_marks, printable, sections
from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.render import coloured, print_json, print_table
from adroit_publish.errors import ConfigError
from adroit_publish.versions import diff as diffing
from adroit_publish.versions.comparison import Diff, TextDiff

_COLOURS = {"+": "32", "-": "31", "@": "36"}


@click.command()
@at_target
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="write a page of HTML too"
)
def diff(context: Context, a: str, b: str, html: Path | None) -> None:
    """Show how version B differs from version A.

    Each is a version, a flavor, or FLAVOR@REF: the version that the flavor has in flavors.yaml at
    that commit, branch or tag.
    """
    difference = diffing.diff(context.checkout, context.store, a, b)
    if html:
        _write(html, page(difference))
    if context.as_json:
        print_json(difference.as_dict())
    else:
        _print(difference)
        if html:
            print(f"\nThe page is {html}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "The page cannot be written.", where=path, got=error.strerror, wanted="--html FILE"
        ) from error


def _print(diff: Diff) -> None:
    if diff.same:
        print("Both are one version: every byte is the same.\n")
    for line in diff.accepted:
        print(coloured(printable(line), "1"))
    alike = []
    for section in sections(diff):
        if not section.rows and not section.note:
            alike.append(section.title.lower())
            continue
        print(coloured(section.title, "1") + (f": {section.note}" if section.note else ""))
        if section.rows:
            print_table(section.headers, section.rows)
        print()
    if alike:
        print(f"No difference: {', '.join(alike)}.")
    for text in diff.texts:
        _print_text(text)


def _print_text(text: TextDiff) -> None:
    note = f" ({text.note})" if text.note else ""
    print(coloured(f"\nsource/{printable(text.path)}{note}", "1"))
    for mark, line in line_marks(text.lines):
        print(coloured(line, _COLOURS.get(mark, "")))
