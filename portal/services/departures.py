"""Users who leave: what was theirs goes to somebody else, or is deleted at a time that is set."""

from __future__ import annotations

import logging

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, UnknownName
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.identity import User
from portal.db.styles import Style
from portal.db.work import Attempt, IdempotencyKey, Job, Model, Part, Picture
from portal.domain.access import SubjectKind
from portal.services import audit, model_owners
from portal.services.audit import SYSTEM, Actor
from portal.services.changes import WORK, Changes
from portal.services.identity import Change, Identity
from portal.services.ports import Clock
from portal.services.subjects import forget

log = logging.getLogger(__name__)

DAY = 86_400.0
LONGEST_DAYS = 365
OWNED = (Job, Part, Attempt, Picture)


class Departures:
    """Deletes users, at once or later. The last administrator cannot leave."""

    def __init__(
        self, database: Database, store: BlobStore, identity: Identity, clock: Clock, changes: Changes
    ) -> None:
        self._database = database
        self._store = store
        self._identity = identity
        self._clock = clock
        self._changes = changes

    def hand_over(self, actor: Actor, user_id: str, heir: str) -> None:
        """Delete a user at once; jobs, pictures, models and styles become those of the user named `heir`,
        and stay shared with whom they were. Raises NotFound, UnknownName, InvalidRequest, NotPermitted,
        Conflict for the last administrator.
        """
        leaving = self._leaving(actor, user_id)
        heir_id = self._id_of(heir)
        if heir_id == user_id:
            raise InvalidRequest("Nobody can be their own heir. Name somebody else.")
        self._identity.change(actor, user_id, Change(disabled=True))
        with self._database.session() as session:
            kept = {user_id, heir_id} & set(
                session.scalars(select(User.id).where(User.id.in_((user_id, heir_id))).with_for_update())
            )
            if kept != {user_id, heir_id}:
                gone = heir if user_id in kept else leaving.username
                raise Conflict(
                    f"The account {gone!r} was deleted meanwhile. Look at the list of users again."
                )
            for table in OWNED:
                session.execute(update(table).where(table.owner_id == user_id).values(owner_id=heir_id))
            _hand_over_styles(session, user_id, heir_id, leaving.username)
            model_owners.hand_over(session, user_id, heir_id, leaving.username)
            told = {"to": heir}
            self._forget(session, user_id)
            audit.record(
                session, actor, "user.hand_over", f"user:{user_id}", subject=leaving.username, details=told
            )
        self._changes.notify(WORK)

    def schedule(self, actor: Actor, user_id: str, days: float) -> float:
        """Disable a user now and delete them with all that is theirs in so many days; the unix time of it.
        Enabling the account until then keeps everything. Raises as `hand_over`.
        """
        if not 0 <= days <= LONGEST_DAYS:
            raise InvalidRequest(f"A deletion lies from 0 to {LONGEST_DAYS} days ahead.")
        self._leaving(actor, user_id)
        self._identity.change(actor, user_id, Change(disabled=True))
        at = self._clock.now() + days * DAY
        with self._database.session() as session:
            user = session.get_one(User, user_id, with_for_update=True)
            user.purge_at = at
            told = {"days": days}
            audit.record(
                session, actor, "user.delete_later", f"user:{user_id}", subject=user.username, details=told
            )
        return at

    def sweep(self) -> int:
        """Delete the users whose time has come; how many. Whose work still runs waits for its end."""
        due = select(User.id).where(User.disabled, User.purge_at <= self._clock.now())
        with self._database.reading() as session:
            leaving = session.scalars(due).all()
        return sum(self._purge(user_id) for user_id in leaving)

    def _purge(self, user_id: str) -> bool:
        with self._database.session() as session:
            user = session.get(User, user_id, with_for_update=True)
            if user is None or user.purge_at is None or not user.disabled:
                return False
            if session.scalar(select(Attempt.id).where(Attempt.owner_id == user_id, Attempt.open).limit(1)):
                return False
            jobs = session.scalars(select(Job.id).where(Job.owner_id == user_id)).all()
            for table in (Picture, Attempt, Part, IdempotencyKey, Job):
                session.execute(delete(table).where(table.owner_id == user_id))
            models = model_owners.owned(session, user_id)
            previews = [model_owners.retire(session, model, self._clock.now()) for model in models]
            audit.record(
                session,
                SYSTEM,
                "user.delete",
                f"user:{user_id}",
                subject=user.username,
                details={"jobs": len(jobs), "models": len(models)},
            )
            self._forget(session, user_id)
        self._drop_previews({each for each in previews if each})
        for job in jobs:
            for blob in list(self._store.list(f"jobs/{job}/")):
                self._store.delete(blob.key)
        log.info("user %s was deleted with %d jobs", user_id, len(jobs))
        return True

    def _drop_previews(self, previews: set[str]) -> None:
        """Remove the previews of deleted models that no other model has."""
        with self._database.reading() as session:
            used = set(
                session.scalars(select(Model.preview_sha256).where(Model.preview_sha256.in_(previews)))
            )
        for sha256 in previews - used:
            self._store.delete(keys.model_preview(sha256))

    def _forget(self, session: Session, user_id: str) -> None:
        """Remove the user's row with what hangs on it, in the caller's transaction."""
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.owner_id == user_id))
        session.flush()
        session.execute(delete(User).where(User.id == user_id))
        forget(session, SubjectKind.USER, user_id)

    def _leaving(self, actor: Actor, user_id: str) -> User:
        if actor.user_id == user_id:
            raise Conflict("You cannot delete your own account. Ask another administrator.")
        return self._identity.user(user_id)

    def _id_of(self, username: str) -> str:
        users = {each.username: each for each in self._identity.users()}
        heir = users.get(username.strip().lower())
        if heir is None:
            raise UnknownName.of("user", username, users)
        if heir.disabled:
            raise Conflict(f"The account {heir.username!r} is disabled. Name somebody who can come in.")
        return heir.id


def _hand_over_styles(session: Session, user_id: str, heir_id: str, name: str) -> None:
    """Give the styles to the heir, under another name where the heir has one of that name."""
    taken = set(session.scalars(select(Style.name).where(Style.owner_id == heir_id)))
    after = session.scalars(select(Style.position).where(Style.owner_id == heir_id)).all()
    position = max(after, default=-1)
    for style in session.scalars(select(Style).where(Style.owner_id == user_id).order_by(Style.position)):
        position += 1
        label = style.name
        number = 1
        while label in taken:
            suffix = f" ({name})" if number == 1 else f" ({name} {number})"
            label, number = style.name[: 200 - len(suffix)] + suffix, number + 1
        taken.add(label)
        style.owner_id, style.name, style.position = heir_id, label, position
    session.flush()
