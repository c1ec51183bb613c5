"""Comments: `#` to the end of the line."""

from __future__ import annotations


def strip(text: str) -> str:
    """`text` without comments: `a # b` becomes `a ` and a line end. Never raises.

    A line that is nothing but a comment goes with its line end, unless it is the first or follows one that
    has just gone: those leave an empty line, as in the peer.
    """
    if "#" not in text:
        return text
    lines = text.split("\n")
    kept: list[str] = []
    gone = False
    for number, line in enumerate(lines):
        words, mark, _ = line.partition("#")
        whole = bool(mark) and not words and not gone
        if not (whole and 0 < number < len(lines) - 1):
            kept.append(words)
        if mark and not whole and number == len(lines) - 1:
            kept.append("")
        if whole and number == 0 == len(lines) - 1:
            kept.append("")
        gone = whole
    return "\n".join(kept)
