from __future__ import annotations

import pytest

from adroit_publish.edge.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07", "a?[31mb?"),
        ("one\ntwo\tthree", "one two three"),
        ("right\u202eleft\u2028line", "right?left line"),
        (b"caf\xc3\xa9 \xff", "café \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_a_terminal_would_act_on_is_not_shown(text, shown):
    assert printable(text) == shown


def test_text_is_cut_by_characters_and_may_keep_its_lines():
    assert printable("é" * 500, 3) == "ééé"
    assert printable(("é" * 500).encode(), 3) == "ééé"
    assert printable("a\nb\rc", keep_lines=True) == "a\nb c"
