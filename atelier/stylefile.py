"""styles.csv, the file in which the peer keeps prompt styles: UTF-8 with a byte order mark, the columns
name, prompt, negative_prompt.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atelier.contract.errors import InvalidRequest, LimitExceeded, PayloadTooLarge

MAX_BYTES = 10 * 2**20
MAX_ROWS = 10_000
COMMENT = "#"
"""What a row begins with that is no style."""
_COLUMNS = ("name", "prompt", "negative_prompt")
_OLD_PROMPT = "text"
"""What the column of the prompt was called before styles had a negative one."""


class PromptStyle(NamedTuple):
    """A named text put around or behind the prompt, and another for the negative prompt."""

    name: str
    prompt: str
    negative_prompt: str


class Row(NamedTuple):
    """A row of a file: the line it begins on, from 1; its style; what is wrong with its cells, "" for
    nothing.
    """

    line: int
    style: PromptStyle
    fault: str = ""


def read(data: bytes) -> list[Row]:
    """The rows of a file, in order, comments and empty ones left out; a name may come twice.

    The old header `name,text` is understood, other columns are passed over. Raises PayloadTooLarge,
    LimitExceeded for too many rows, InvalidRequest for what is no such file.
    """
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(
            f"The file is larger than {MAX_BYTES // 2**20} MiB, the most a file of styles may have."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest("The file is not UTF-8. Save it as UTF-8 and send it again.") from error
    cells = _cells(text)
    header = next(cells, (1, []))[1]
    names = [name.strip().lower() for name in header]
    if "name" not in names or not {"prompt", _OLD_PROMPT} & set(names):
        raise InvalidRequest(f"The file's first row is not `{','.join(_COLUMNS)}`, so it is no styles.csv.")
    rows = [_row(line, row, names) for line, row in itertools.islice(cells, MAX_ROWS + 1)]
    if len(rows) > MAX_ROWS:
        raise LimitExceeded(f"The file has more than {MAX_ROWS:,} rows, the most that are read.")
    return rows


def write(styles: Iterable[PromptStyle]) -> bytes:
    """A file of the styles that the peer reads, and `read` too."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    writer.writerows(styles)
    return out.getvalue().encode("utf-8-sig")


def _cells(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line it begins on, cells) of each row that is neither empty nor a comment."""
    reader = csv.reader(io.StringIO(text, newline=""))
    line = 1
    try:
        for row in reader:
            if row and any(row) and not row[0].startswith(COMMENT):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(
            f"The row on line {line} cannot be read ({error}). Is the quote closed that it opens?"
        ) from error


def _row(line: int, cells: list[str], names: list[str]) -> Row:
    by_name = dict(zip(names, cells, strict=False))
    prompt = by_name.get("prompt", by_name.get(_OLD_PROMPT, ""))
    style = PromptStyle(by_name.get("name", ""), prompt, by_name.get("negative_prompt", ""))
    too_many = any(cells[len(names) :])
    return Row(line, style, f"the row has {len(cells)} cells; is a comma not in quotes?" if too_many else "")
