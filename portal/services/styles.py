"""Prompt styles: every user's own, the studio's, which all may name, and what others share. An own style
hides the studio's of that name, and that hides a shared one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from atelier import stylefile
from atelier.contract.errors import AtelierError, Conflict, InvalidRequest, LimitExceeded, NotFound
from atelier.contract.limits import MAX_PROMPT_CHARACTERS
from atelier.stylefile import PromptStyle
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.styles import Style
from portal.domain.sharing import Visibility
from portal.services import audit
from portal.services.ports import Clock
from portal.services.sharing import shared_with, standings

MAX_NAME_CHARACTERS = 200
MAX_STYLES = 2_000
"""Of one owner; the studio is one too."""
MAX_CHARACTERS = 2_000_000
"""Of all styles of one owner together: every request looks among them, and whatever is exported can be
imported again.
"""


class Scope(StrEnum):
    """Whose styles are meant."""

    OWN = "own"
    STUDIO = "studio"
    SHARED = "shared"
    """Others' own, which they share. Nobody but their owners changes them."""


@dataclass(frozen=True)
class StyleView:
    """A style as it is shown."""

    id: str
    name: str
    prompt: str
    negative_prompt: str
    scope: Scope
    owner: str = ""
    """The user's name; "" for the studio's."""
    visibility: str = Visibility.STUDIO.value
    team: str | None = None

    @property
    def style(self) -> PromptStyle:
        """What a file has of it."""
        return PromptStyle(self.name, self.prompt, self.negative_prompt)


@dataclass(frozen=True)
class Refusal:
    """A row of a file that became no style. `line` counts from 1."""

    line: int
    name: str
    reason: str


@dataclass(frozen=True)
class Intake:
    """What became of a file's rows."""

    added: int
    replaced: int
    refused: tuple[Refusal, ...]


class Styles:
    """Keeps styles. `publish` is called after each change of the studio's, which direct callers of workers
    may name.
    """

    def __init__(self, database: Database, clock: Clock, publish: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._publish = publish

    def listed(self, actor: audit.Actor, scope: Scope | None = None) -> list[StyleView]:
        """The styles of a scope in their order; without one, those a request of `actor` may name."""
        with self._database.reading() as session:
            if scope is Scope.SHARED:
                return _views(session, actor, session.scalars(_shared(actor.user_id or "")).all())
            if scope is not None:
                return _views(session, actor, session.scalars(_owned(_owner(actor, scope))).all())
            return _views(session, actor, list(_effective(session, actor.user_id).values()))

    def save(
        self, actor: audit.Actor, scope: Scope, style: PromptStyle, origin: audit.Origin = audit.Origin()
    ) -> StyleView:
        """Make a style or replace the one of its name. Raises InvalidRequest, LimitExceeded."""
        with self._changing(actor, scope) as (session, shelf):
            replaced = style.name in shelf.rows
            row = shelf.put(style)
            session.flush()
            [saved] = _views(session, actor, [row])
            if scope is Scope.STUDIO:
                _note(session, actor, "style.save", f"style:{style.name}", origin, replaced=replaced)
        return saved

    def delete(
        self, actor: audit.Actor, scope: Scope, name: str, origin: audit.Origin = audit.Origin()
    ) -> None:
        """Take a style away. Raises NotFound, also for what is somebody else's."""
        with self._changing(actor, scope) as (session, shelf):
            row = shelf.rows.get(name)
            if row is None:
                whose = "You have" if scope is Scope.OWN else "The studio has"
                raise NotFound(f"{whose} no style named {name[:MAX_NAME_CHARACTERS]!r}.")
            session.delete(row)
            if scope is Scope.STUDIO:
                _note(session, actor, "style.delete", f"style:{name}", origin)

    def take_in(
        self, actor: audit.Actor, scope: Scope, data: bytes, origin: audit.Origin = audit.Origin()
    ) -> Intake:
        """Add the styles of a styles.csv, each in place of one of its name; of two in the file the last
        holds. Raises what `stylefile.read` does; a row that cannot be kept is told and the others are kept.
        """
        rows = stylefile.read(data)
        refused: list[Refusal] = []
        with self._changing(actor, scope) as (session, shelf):
            before, kept = set(shelf.rows), set()
            for line, style, fault in rows:
                try:
                    if fault:
                        raise InvalidRequest(f"Not kept: {fault}")
                    kept.add(shelf.put(style).name)
                except AtelierError as error:
                    refused.append(Refusal(line, style.name[:MAX_NAME_CHARACTERS], error.message))
            intake = Intake(len(kept - before), len(kept & before), tuple(refused))
            if scope is Scope.STUDIO and kept:
                counts = {"added": intake.added, "replaced": intake.replaced}
                _note(session, actor, "style.import", "style:*", origin, **counts)
        return intake

    def written(self, actor: audit.Actor, scope: Scope) -> bytes:
        """A styles.csv of a scope's styles."""
        return stylefile.write(view.style for view in self.listed(actor, scope))

    @contextmanager
    def _changing(self, actor: audit.Actor, scope: Scope) -> Iterator[tuple[Session, _Shelf]]:
        """A transaction on the styles of a scope; what depends on them is told afterwards."""
        owner = _owner(actor, scope)
        try:
            with self._database.session() as session:
                yield session, _Shelf(session, owner, self._clock.now())
        except IntegrityError as error:
            raise Conflict("Somebody else has just made a style of that name. Send it again.") from error
        if scope is Scope.STUDIO:
            self._publish()


def texts(session: Session, user_id: str | None) -> dict[str, tuple[str, str]]:
    """Name -> (prompt, negative prompt) of every style a user's request may name; of the studio's alone
    without a user.
    """
    found = _effective(session, user_id)
    return {name: (row.prompt, row.negative_prompt) for name, row in found.items()}


class _Shelf:
    """All styles of one owner while they are being changed."""

    def __init__(self, session: Session, owner: str | None, now: float) -> None:
        if owner is not None:
            # Two changes of one user's styles at once would each find room for one more.
            session.get(User, owner, with_for_update={"key_share": True})
        self.rows = {row.name: row for row in session.scalars(_owned(owner))}
        self._session, self._owner, self._now = session, owner, now
        self._characters = sum(_length(row) for row in self.rows.values())
        self._next = 1 + max((row.position for row in self.rows.values()), default=-1)

    def put(self, style: PromptStyle) -> Style:
        """The row of the style, new or with its texts replaced. Raises InvalidRequest, LimitExceeded."""
        _check(style)
        row = self.rows.get(style.name)
        if row is None and len(self.rows) >= MAX_STYLES:
            raise LimitExceeded(f"There are {MAX_STYLES:,} styles already, the most there may be.")
        characters = self._characters + _length(style) - (_length(row) if row else 0)
        if characters > max(MAX_CHARACTERS, self._characters):
            raise LimitExceeded(f"All styles together have more than {MAX_CHARACTERS:,} characters.")
        if row is None:
            row = Style(
                id=new_id(), owner_id=self._owner, name=style.name, position=self._next, created=self._now
            )
            seen_by = Visibility.STUDIO if self._owner is None else Visibility.PRIVATE
            row.visibility = seen_by.value
            self._session.add(row)
            self.rows[style.name] = row
            self._next += 1
        row.prompt, row.negative_prompt = style.prompt, style.negative_prompt
        self._characters = characters
        return row


def _owner(actor: audit.Actor, scope: Scope) -> str | None:
    """The `owner_id` of a scope's styles."""
    if scope is Scope.STUDIO:
        return None
    if scope is Scope.SHARED:
        raise InvalidRequest("What others share is theirs to change. Keep a style of your own instead.")
    if actor.user_id is None:
        raise InvalidRequest("Only a user has styles of their own.")
    return actor.user_id


def _owned(owner: str | None) -> Select[Style]:
    whose = Style.owner_id.is_(None) if owner is None else Style.owner_id == owner
    return select(Style).where(whose).order_by(Style.position, Style.id)


def _shared(user_id: str) -> Select[Style]:
    """What others share with a user, the oldest first: a name goes to who had it first."""
    theirs = Style.owner_id.is_not(None), Style.owner_id != user_id
    return select(Style).where(*theirs, shared_with(Style, user_id)).order_by(Style.created, Style.id)


def _effective(session: Session, user_id: str | None) -> dict[str, Style]:
    """The studio's styles, then the user's own, then what others share with them; an own one stands where it
    hides the studio's.
    """
    found = {row.name: row for row in session.scalars(_owned(None))}
    if user_id is None:
        return found
    found |= {row.name: row for row in session.scalars(_owned(user_id))}
    for row in session.scalars(_shared(user_id)):
        found.setdefault(row.name, row)
    return found


def _views(session: Session, actor: audit.Actor, rows: Sequence[Style]) -> list[StyleView]:
    """Rows as `actor` sees them."""
    scopes = {None: Scope.STUDIO, actor.user_id or "": Scope.OWN}
    return [
        StyleView(
            row.id,
            row.name,
            row.prompt,
            row.negative_prompt,
            scopes.get(row.owner_id, Scope.SHARED),
            each.owner,
            each.visibility.value,
            each.team,
        )
        for row, each in zip(rows, standings(session, rows), strict=True)
    ]


def _length(style: Style | PromptStyle) -> int:
    return len(style.prompt) + len(style.negative_prompt)


def _check(style: PromptStyle) -> None:
    """Raise InvalidRequest, LimitExceeded for a style that could not be stored, named in a URL or written to
    a file.
    """
    name = style.name
    if not name.strip() or len(name) > MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"A style's name has from 1 to {MAX_NAME_CHARACTERS} characters.")
    if name.startswith(stylefile.COMMENT) or name in (".", "..") or any(ord(char) < 32 for char in name):
        raise InvalidRequest("A style's name is one line, begins without # and is not a dot or two.")
    for what, text in (("prompt", style.prompt), ("negative prompt", style.negative_prompt)):
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise LimitExceeded(
                f"The style's {what} has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} may be."
            )
        if "\0" in text:
            raise InvalidRequest(f"The style's {what} has a NUL character, which no text has.")


def _note(
    session: Session, actor: audit.Actor, action: str, what: str, origin: audit.Origin, **details: int | bool
) -> None:
    audit.record(session, actor, action, what, origin=origin, details=dict(details))
