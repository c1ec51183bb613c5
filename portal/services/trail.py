"""Reading the audit trail: by what is asked for, as an export, and whether it is still what was written."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select

from portal.db.audit import AuditEntry, AuditHead
from portal.db.base import Database
from portal.domain import chain
from portal.services.audit import Actor, record, sealed_part

CHUNK = 1000
"""Entries read at once for an export or a verification: memory stays the same for a trail of years."""
COLUMNS = tuple(column.key for column in AuditEntry.__table__.c)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""


@dataclass(frozen=True)
class Wanted:
    """Which entries somebody asks for; None asks nothing. `action` and `object` match from their beginning,
    the rest to the letter; `since` and `until` are unix seconds, the second not included.
    """

    action: str | None = None
    actor: str | None = None
    subject: str | None = None
    object: str | None = None
    result: str | None = None
    request_id: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Verified:
    """What a verification found. `broken` says what is wrong first, None where the whole chain holds;
    `unsealed` counts entries from before there was a chain; (`count`, `hash`) is its end, to be kept
    elsewhere and asked for later.
    """

    entries: int
    unsealed: int
    count: int
    hash: str
    broken: str | None


class Trail:
    """The audit trail as administrators read it."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._key = key

    def entries(
        self, wanted: Wanted = Wanted(), *, before: int | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        """The newest entries first, at most `limit`, older than the entry with id `before`."""
        query = _wanted(wanted).order_by(AuditEntry.id.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditEntry.id < before)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def in_order(self, wanted: Wanted = Wanted()) -> Iterator[AuditEntry]:
        """Every wanted entry, the oldest first."""
        after = 0
        while True:
            query = _wanted(wanted).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(CHUNK)
            with self._database.reading() as session:
                found = session.scalars(query).all()
            yield from found
            if len(found) < CHUNK:
                return
            after = found[-1].id

    def note_export(self, actor: Actor, format: str) -> None:
        """Somebody takes the trail away."""
        with self._database.session() as session:
            record(session, actor, "audit.export", "audit", details={"format": format})

    def as_csv(self, wanted: Wanted = Wanted()) -> Iterator[str]:
        """The wanted entries as lines of CSV (RFC 4180), with a line of names first. What a spreadsheet would
        compute is quoted with an apostrophe. The database is asked before this returns: what it says to the
        question comes before the first line.
        """
        entries = _begun(self.in_order(wanted))
        rows = (_csv_line([_cell(getattr(entry, name)) for name in COLUMNS]) for entry in entries)
        return itertools.chain([_csv_line(COLUMNS)], rows)

    def as_json_lines(self, wanted: Wanted = Wanted()) -> Iterator[str]:
        """The wanted entries as one JSON object a line; the database is asked before this returns."""
        entries = _begun(self.in_order(wanted))
        return (json.dumps({name: getattr(entry, name) for name in COLUMNS}) + "\n" for entry in entries)

    def verify(self, expected: tuple[int, str] | None = None) -> Verified:
        """Read the whole trail and say whether it is what was written. `expected` is an earlier end of the
        chain (count, hash): without it, somebody who took away the newest entries and put the head back
        would not be noticed.
        """
        with self._database.reading() as session:
            head = session.get(AuditHead, 1)
        count, end = (head.count, head.hash) if head else (0, "")
        walk = _Walk(self._key)
        for entry in self.in_order():
            if entry.id > count and head is not None:
                break  # came while we read
            walk.step(entry)
            if expected and entry.id == expected[0] and entry.hash != expected[1]:
                walk.blame(f"Entry {entry.id} is not the one that was noted: the trail was written anew.")
        if walk.last != (count, end):
            walk.blame(f"The trail ends with entry {walk.last[0]}, and its head says {count}.")
        if expected and expected[0] > walk.last[0]:
            walk.blame(f"The trail ends with entry {walk.last[0]}; entry {expected[0]} was noted before.")
        return Verified(walk.entries, walk.unsealed, count, end, walk.broken)


class _Walk:
    """A verification under way."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.entries = self.unsealed = 0
        self.last = (0, "")
        self.broken: str | None = None

    def step(self, entry: AuditEntry) -> None:
        """Take the next entry in."""
        number, previous = self.last
        self.entries += 1
        sealed_before = self.entries - 1 > self.unsealed
        if not entry.hash and not sealed_before:
            self.unsealed += 1
        elif sealed_before and entry.id != number + 1:
            self.blame(f"Entry {number + 1} is missing.")
        elif not chain.holds(self._key, previous, sealed_part(entry), entry.hash):
            self.blame(f"Entry {entry.id} is not what was written.")
        self.last = (entry.id, entry.hash)

    def blame(self, sentence: str) -> None:
        """Keep the first thing that is wrong."""
        self.broken = self.broken or sentence


def _wanted(wanted: Wanted) -> Select[AuditEntry]:
    query = select(AuditEntry)
    for column, begins in ((AuditEntry.action, wanted.action), (AuditEntry.object, wanted.object)):
        if begins:
            query = query.where(column.startswith(begins, autoescape=True))
    exact = {
        AuditEntry.actor_name: wanted.actor,
        AuditEntry.subject: wanted.subject,
        AuditEntry.result: wanted.result,
        AuditEntry.request_id: wanted.request_id,
    }
    for column, value in exact.items():
        if value:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEntry.at < wanted.until)
    return query


def _begun(entries: Iterator[AuditEntry]) -> Iterator[AuditEntry]:
    """The same, with the first one fetched."""
    return itertools.chain(list(itertools.islice(entries, 1)), entries)


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _cell(value: object) -> object:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    if isinstance(text, str) and text.startswith(FORMULA):
        return f"'{text}"
    return text
