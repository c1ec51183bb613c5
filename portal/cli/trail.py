"""atelier audit: whether the trail holds, and all of it as a file."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest
from portal.cli.commands import OPERATOR, command, group, services

if TYPE_CHECKING:
    from portal.cli.commands import Commands

_END = re.compile(r"(\d{1,18}):([0-9a-f]{64})\Z")


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    audit = group(commands, "audit", "Verify and export the audit trail.")
    verify = command(audit, "verify", _verify, "Say whether the audit trail is what was written.")
    verify.add_argument(
        "--expect", metavar="COUNT:HASH", help="an end of the trail that an earlier verify printed"
    )
    export = command(audit, "export", _export, "Write the audit trail to a file, - for the terminal.")
    export.add_argument("file", metavar="FILE")
    export.add_argument("--format", choices=["csv", "jsonl"], default="csv")


def _verify(arguments: argparse.Namespace) -> int:
    expected = None
    if arguments.expect is not None:
        found = _END.match(arguments.expect)
        if found is None:
            raise InvalidRequest("--expect is COUNT:HASH as an earlier `atelier audit verify` printed it.")
        expected = int(found[1]), found[2]
    with services() as built:
        verified = built.trail.verify(expected)
    if verified.broken:
        print(f"The audit trail does not hold: {verified.broken}", file=sys.stderr)
        return 1
    print(f"The audit trail holds: {verified.entries} entries.")
    if verified.unsealed:
        print(f"{verified.unsealed} of them are from before entries were chained.")
    print(f"Its end, to keep elsewhere: {verified.count}:{verified.hash}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with services() as built:
        built.trail.note_export(OPERATOR, arguments.format)
        lines = built.trail.as_csv() if arguments.format == "csv" else built.trail.as_json_lines()
        if arguments.file == "-":
            sys.stdout.writelines(lines)
            return 0
        with Path(arguments.file).open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    print(f"Wrote {arguments.file}.")
    return 0
