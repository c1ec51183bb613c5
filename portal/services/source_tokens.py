"""Tokens for the sites that models come from: kept sealed, sent to their own site alone, never shown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from atelier import outbound, redaction
from atelier.contract.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from atelier.modelsource import HubSource, Source, WebSource
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.imports import SourceToken
from portal.services import audit, sealing
from portal.services.access import KEEPER
from portal.services.callers import Caller
from portal.services.ports import Clock, Secrets

KEY = "source-tokens"
"""The secret that seals them."""
MOST = 50
"""Tokens of one owner."""
LEAST = 16
"""Characters of a token: what is shorter could be any word, and would be struck out of every log line."""
_TOKEN = re.compile(rf"[!-~]{{{LEAST},1000}}\Z")


@dataclass(frozen=True)
class TokenView:
    """What is told of a token. `owner` "" for the studio's; times in unix seconds."""

    id: str
    name: str
    site: str
    owner: str
    created: float
    used: float | None


class SourceTokens:
    """Keeps, lists and forgets them, and gives the one that an import needs. `hub` is the Hub's address."""

    def __init__(self, database: Database, secrets: Secrets, clock: Clock, hub: str) -> None:
        self._database, self._secrets, self._clock = database, secrets, clock
        self.hub_site = outbound.parse(hub).site

    def listed(self, actor: audit.Actor) -> list[TokenView]:
        """The caller's own, and the studio's for who looks after models; by site and name."""
        with self._database.reading() as session:
            rows = _usable(session, actor.user_id, keeper=_keeps(actor))
            return [_view(row, actor.username if row.owner_id else "") for row in rows]

    def keep(
        self, actor: audit.Actor, name: str, site: str, token: str, *, studio: bool = False
    ) -> TokenView:
        """Keep a token: the caller's own, or the studio's, which the command line's are. Raises
        NotPermitted, InvalidRequest, Conflict for a name that is taken, LimitExceeded.
        """
        studio = studio or actor.user_id is None
        if studio and isinstance(actor, Caller):
            actor.demand(KEEPER)
        name, token = name.strip(), token.strip()
        if not 0 < len(name) <= 64 or not name.isprintable():
            raise InvalidRequest("A token's name has from 1 to 64 characters on one line.")
        if not _TOKEN.match(token):
            raise InvalidRequest(f"A token has from {LEAST} to 1,000 plain characters, without spaces.")
        where = self._site(site)
        owner = None if studio else actor.user_id
        with self._database.session() as session:
            if owner is not None:
                session.get(User, owner, with_for_update=True)
            theirs = session.scalars(select(SourceToken).where(_whose(owner))).all()
            if any(each.name == name for each in theirs):
                raise Conflict(f"There is already a token named {name!r}. Delete it first.")
            if len(theirs) >= MOST:
                raise LimitExceeded(f"At most {MOST} tokens are kept. Delete one first.")
            row = SourceToken(
                id=new_id(), owner_id=owner, name=name, site=where, created=self._clock.now(), used=None
            )
            sealed = sealing.seal(self._key(), token.encode(), row.id)
            row.sealed = base64.b64encode(sealed).decode()
            session.add(row)
            told = {"name": name, "site": where, "studio": studio}
            audit.record(session, actor, "token.keep", f"token:{row.id}", details=told)
            view = _view(row, "" if studio else actor.username)
        redaction.hide(token)
        return view

    def delete(self, actor: audit.Actor, token_id: str) -> None:
        """Forget a token. Raises NotFound, also for somebody else's."""
        with self._database.session() as session:
            usable = _usable(session, actor.user_id, keeper=_keeps(actor))
            row = next((each for each in usable if each.id == token_id), None)
            if row is None:
                raise _absent()
            session.delete(row)
            told = {"name": row.name, "site": row.site, "studio": row.owner_id is None}
            audit.record(session, actor, "token.delete", f"token:{row.id}", details=told)

    def chosen(
        self, session: Session, source: Source, user_id: str | None, *, keeper: bool, wish: str
    ) -> str | None:
        """The id of the token that an import is to use: the one named by `wish`; for "auto" the one for its
        source's site, the user's own before the studio's; for "none" none. Raises NotFound, InvalidRequest
        for one of another site.
        """
        site = self.site_of(source)
        usable = _usable(session, user_id, keeper=keeper)
        if wish in ("", "auto"):
            fitting = [each for each in usable if each.site == site]
            return min(fitting, key=lambda each: each.owner_id is None).id if fitting else None
        if wish == "none":
            return None
        row = next((each for each in usable if each.id == wish), None)
        if row is None:
            raise _absent()
        if row.site != site:
            raise InvalidRequest(
                f"The token {row.name!r} is for {row.site} and is sent to no other site than that."
            )
        return row.id

    def opened(self, session: Session, token_id: str) -> tuple[str, str]:
        """(token, its site), which is used now. Raises NotFound where it was deleted."""
        row = session.get(SourceToken, token_id)
        if row is None:
            raise NotFound("The token this import was to use was deleted. Import again with another one.")
        row.used = self._clock.now()
        token = sealing.unseal(self._key(), base64.b64decode(row.sealed), row.id).decode()
        redaction.hide(token)
        return token, row.site

    def site_of(self, source: Source) -> str:
        """The site that a source's token is for, "" where it takes none."""
        if isinstance(source, HubSource):
            return self.hub_site
        return outbound.parse(source.url).site if isinstance(source, WebSource) else ""

    def _site(self, given: str) -> str:
        """A site as somebody wrote it: a host, or an address of it. Raises InvalidRequest."""
        text = given.strip() or self.hub_site
        return outbound.parse(text if "://" in text else f"https://{text}").site

    def _key(self) -> bytes:
        return sealing.key_of(self._secrets.get(KEY))


def _keeps(actor: audit.Actor) -> bool:
    return not isinstance(actor, Caller) or actor.may(KEEPER)


def _usable(session: Session, user_id: str | None, *, keeper: bool) -> Sequence[SourceToken]:
    """A user's own tokens, and for who looks after models the studio's."""
    mine = SourceToken.owner_id == user_id
    studios = SourceToken.owner_id.is_(None)
    whose = studios if user_id is None else or_(mine, studios) if keeper else mine
    query = select(SourceToken).where(whose).order_by(SourceToken.site, SourceToken.name, SourceToken.id)
    return session.scalars(query).all()


def _whose(owner: str | None) -> ColumnElement[bool]:
    return SourceToken.owner_id.is_(None) if owner is None else SourceToken.owner_id == owner


def _view(row: SourceToken, owner: str) -> TokenView:
    return TokenView(row.id, row.name, row.site, owner, row.created, row.used)


def _absent() -> NotFound:
    return NotFound("There is no such token. It may have been deleted: reload the list.")
