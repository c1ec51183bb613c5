"""styles.csv as the peer writes it, as old versions wrote it, and as people edit it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import stylefile
from atelier.contract.errors import InvalidRequest, LimitExceeded, PayloadTooLarge
from atelier.stylefile import PromptStyle

HEADER = "name,prompt,negative_prompt\r\n"


def styles(text: str) -> list[PromptStyle]:
    rows = stylefile.read(text.encode())
    assert not any(row.fault for row in rows)
    return [row.style for row in rows]


def test_the_peers_own_file_is_read(golden: Path) -> None:
    rows = stylefile.read((golden / "styles.csv").read_bytes())
    assert [row.style for row in rows] == [
        PromptStyle("wrap", "photo of {prompt}, bright", "dark"),
        PromptStyle("plain", "sharp edges", "blurry, {prompt}"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert styles("\ufeff" + HEADER + "a,b,c\r\n") == styles(HEADER + "a,b,c\r\n") == [("a", "b", "c")]


def test_the_old_header_had_one_text() -> None:
    assert styles("name,text\nold,a painting\n") == [("old", "a painting", "")]


def test_columns_stand_in_any_order_and_others_are_passed_over() -> None:
    assert styles("negative_prompt,more,name,prompt\nc,x,a,b\n") == [("a", "b", "c")]


def test_comments_and_empty_rows_are_no_styles_and_lines_still_count() -> None:
    text = HEADER + '# ---- portraits, "mine" ----\n\n,,\n a #,b # c,#d\n#a,b,c\nlast,"# x\n# y",\n'
    rows = stylefile.read(text.encode())
    assert [(row.line, *row.style) for row in rows] == [
        (5, " a #", "b # c", "#d"),
        (7, "last", "# x\n# y", ""),
    ]


def test_quotes_commas_and_line_breaks_belong_to_a_text_in_quotes() -> None:
    text = HEADER + 'q,"say ""hi"", loud\r\nand\nclear\rnow","{prompt}"\r\nnext,a "b" c,\n'
    rows = stylefile.read(text.encode())
    assert [tuple(row.style) for row in rows] == [
        ("q", 'say "hi", loud\r\nand\nclear\rnow', "{prompt}"),
        ("next", 'a "b" c', ""),
    ]
    assert rows[0].line == 2
    assert rows[1].line > 3


def test_a_short_row_lacks_texts_and_a_long_one_lacks_quotes() -> None:
    rows = stylefile.read((HEADER + "short\nlong,photo, bright,dark\nexcel,a,b,,\n").encode())
    assert rows[0].style == ("short", "", "")
    assert "4 cells" in rows[1].fault
    assert (rows[2].style, rows[2].fault) == (("excel", "a", "b"), "")


@pytest.mark.parametrize(
    "data", [b"", b"\xef\xbb\xbf", b"a,b,c\n", b"name,negative_prompt\nx,y\n", b"\x89PNG\r\n"]
)
def test_what_is_no_file_of_styles_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        stylefile.read(data)


def test_another_encoding_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="UTF-8"):
        stylefile.read((HEADER + "müde,a,b").encode("latin-1"))
    with pytest.raises(InvalidRequest, match="UTF-8"):
        stylefile.read((HEADER + "a,b,c").encode("utf-16"))


def test_an_open_quote_is_told_by_the_line_it_opens_on() -> None:
    text = HEADER + 'fine,a,b\nopen,"never closed,\n' + "x,y,z\n" * 40_000
    with pytest.raises(InvalidRequest, match=r"line 3 .*quote"):
        stylefile.read(text.encode())


def test_a_file_may_not_be_too_large() -> None:
    with pytest.raises(PayloadTooLarge, match="10 MiB"):
        stylefile.read(HEADER.encode() + b"x" * stylefile.MAX_BYTES)
    rows = HEADER + "a,b,c\n" * stylefile.MAX_ROWS
    assert len(styles(rows)) == stylefile.MAX_ROWS
    with pytest.raises(LimitExceeded, match="10,000"):
        stylefile.read((rows + "a,b,c\n").encode())


def test_what_is_written_is_the_peers_form() -> None:
    written = stylefile.write([PromptStyle("a", 'x "y"', "1,2"), PromptStyle("b", "", "")])
    assert written == b'\xef\xbb\xbfname,prompt,negative_prompt\r\na,"x ""y""","1,2"\r\nb,,\r\n'


TEXT = st.text(alphabet=st.one_of(st.sampled_from('",#\r\n {}'), st.characters(codec="utf-8")), max_size=60)
NAME = TEXT.filter(lambda name: bool(name) and not name.startswith("#"))


@given(st.lists(st.builds(PromptStyle, NAME, TEXT, TEXT), max_size=6))
def test_what_is_written_is_read_again(written: list[PromptStyle]) -> None:
    assert [row.style for row in stylefile.read(stylefile.write(written))] == written
