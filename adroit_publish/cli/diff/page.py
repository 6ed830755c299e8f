"""A diff as one page of HTML that needs nothing else: no script, no font, no request.

Everything that comes from a version is escaped, and the page's own policy forbids what a slip
would let in.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from adroit_publish.cli.diff.sections import DiffSection, line_marks, printable, sections
from adroit_publish.versions.comparison import Diff, TextDiff

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_CLASSES = {"+": "added", "-": "removed", "~": "changed", "?": "changed", "@": "place"}
_SHORT_CHARS = 24
_STYLE = """
:root { color-scheme: light dark;
  --ink: #1f2328; --paper: #ffffff; --faint: #59636e; --line: #d1d9e0; --head: #f6f8fa;
  --added: #dafbe1; --removed: #ffebe9; --changed: #fff8c5; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6edf3; --paper: #0d1117; --faint: #9198a1; --line: #3d444d; --head: #151b23;
  --added: #12351f; --removed: #45191c; --changed: #3a2f0b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.note { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { background: var(--head); } th, .short { white-space: nowrap; } td:first-child { width: 1ch; }
td, pre { font-family: ui-monospace, monospace; }
.added { background: var(--added); } .removed { background: var(--removed); }
.changed { background: var(--changed); } .place { color: var(--faint); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; }
summary { background: var(--head); padding: .4rem .8rem; cursor: pointer; }
pre { margin: 0; overflow-x: auto; font-size: .85rem; }
pre span { display: block; padding: 0 .8rem; white-space: pre; min-height: 1.5em; }
"""


def page(diff: Diff) -> str:
    """Returns the page, a whole document of HTML 5."""
    title = f"{diff.before['version']} and {diff.after['version']}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            *(f'<p class="note">{escape(line)}</p>' for line in _lead(diff)),
            *(_section(section) for section in sections(diff)),
            "<h2>Source</h2>",
            *_texts(diff.texts),
        ]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _lead(diff: Diff) -> Iterator[str]:
    if diff.same:
        yield "Both are one version: every byte is the same."
    yield from map(printable, diff.accepted)
    yield f"A is {printable(diff.before['asked'])}, B is {printable(diff.after['asked'])}."


def _section(section: DiffSection) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.rows:
        heads = "".join(f'<th scope="col">{escape(header)}</th>' for header in section.headers)
        rows = "\n".join(_row(row) for row in section.rows)
        parts.append(
            f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody></table></div>"
        )
    note = section.note or ("" if section.rows else "no difference")
    if note:
        parts.append(f'<p class="note">{escape(note)}</p>')
    return "\n".join(parts)


def _row(row: tuple[str, ...]) -> str:
    cells = "".join(_cell(cell) for cell in row)
    return f'<tr class="{_CLASSES.get(row[0], "")}">{cells}</tr>'


def _cell(text: str) -> str:
    # A long text breaks anywhere, or a digest would push the table out of the page.
    unbroken = ' class="short"' if len(text) <= _SHORT_CHARS else ""
    return f"<td{unbroken}>{escape(text)}</td>"


def _texts(texts: tuple[TextDiff, ...]) -> Iterator[str]:
    if not texts:
        yield '<p class="note">no difference</p>'
    for text in texts:
        lines = "".join(
            f'<span class="{_CLASSES.get(mark, "")}">{escape(line)}</span>'
            for mark, line in line_marks(text.lines)
        )
        note = f' <span class="note">{escape(text.note)}</span>' if text.note else ""
        yield (
            f"<details open><summary>{escape(printable(text.path))}{note}</summary>"
            f"<pre>{lines}</pre></details>"
        )
