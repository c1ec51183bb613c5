"""Users, logins and the audit trail, on both databases."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import inspect, select, text

from atelier.contract.errors import (
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    TooManyRequests,
    UnknownName,
)
from portal.bootstrap import build
from portal.db.audit import AuditEntry
from portal.db.base import Base, Database
from portal.db.identity import User
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.audit import Origin
from portal.services.identity import Change
from portal.services.passwords import MOST_IN_LINE, Passwords
from portal.services.throttle import LoginThrottle
from portal.settings import load
from tests.jobs_studio import PASSWORD, Studio, staffed
from tests.waiting import eventually

ORIGIN = Origin("r1", "127.0.0.1", "test")
ELSEWHERE = Origin("r2", "127.0.0.2", "test")


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    with staffed(studio_url, tmp_path) as made:
        yield made


def user(studio: Studio, name: str) -> User:
    return next(each for each in studio.services.identity.users() if each.username == name)


def trail(studio: Studio, action: str) -> list[AuditEntry]:
    with studio.database.reading() as session:
        return list(session.scalars(select(AuditEntry).where(AuditEntry.action == action)))


def test_a_login_gives_tokens_that_name_the_user(studio: Studio) -> None:
    found, tokens = studio.services.identity.log_in("Ann ", PASSWORD, ORIGIN)
    caller = studio.services.sessions.caller_of(tokens.access)
    assert (caller.user_id, caller.username, caller.role) == (found.id, "ann", "designer")
    assert len(trail(studio, "login")) == 1


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_a_wrong_password_and_an_unknown_name_are_told_alike(studio: Studio, name: str) -> None:
    with pytest.raises(NotAuthenticated, match="user name or the password"):
        studio.services.identity.log_in(name, "not the password", ORIGIN)


def test_a_password_is_stored_as_an_argon2id_hash(studio: Studio) -> None:
    assert user(studio, "ann").password_hash.startswith("$argon2id$")


def test_a_studio_hashes_at_the_cost_its_library_recommends(tmp_path: Path) -> None:
    services = build(load(data_dir=tmp_path, roles=("api",)))
    try:
        upgrade(services.database)
        made = services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
        assert made.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert services.identity.log_in("ann", PASSWORD, ORIGIN)[0].id == made.id
    finally:
        services.database.close()


@pytest.mark.parametrize("password", ["short", "ann", "password1234", "x" * 2000])
def test_weak_and_endless_passwords_are_refused(studio: Studio, password: str) -> None:
    with pytest.raises(InvalidRequest):
        studio.services.identity.create(audit.SYSTEM, "ann2", password, "designer")


@pytest.mark.parametrize("name", ["", "a b", "../x", "ann\0", "x" * 65, "-x"])
def test_odd_user_names_are_refused(studio: Studio, name: str) -> None:
    with pytest.raises(InvalidRequest):
        studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")


def test_a_name_is_taken_once_and_a_role_must_exist(studio: Studio) -> None:
    with pytest.raises(Conflict):
        studio.services.identity.create(audit.SYSTEM, "ANN", PASSWORD, "designer")
    with pytest.raises(UnknownName):
        studio.services.identity.create(audit.SYSTEM, "cem", PASSWORD, "emperor")


@pytest.mark.parametrize("change", [Change(roles=["designer"]), Change(disabled=True)])
def test_the_last_administrator_stays_one(studio: Studio, change: Change) -> None:
    with pytest.raises(Conflict, match="last administrator"):
        studio.services.identity.change(audit.SYSTEM, user(studio, "root").id, change)
    studio.services.identity.create(audit.SYSTEM, "second", PASSWORD, "admin")
    studio.services.identity.change(audit.SYSTEM, user(studio, "root").id, change)
    changed = user(studio, "root")
    assert changed.disabled or changed.roles == ("designer",)


@pytest.mark.parametrize(
    "change", [Change(disabled=True), Change(roles=["admin"]), Change(password="another long password")]
)
def test_a_change_by_an_administrator_ends_every_login_of_the_user(studio: Studio, change: Change) -> None:
    _, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    studio.services.identity.change(audit.SYSTEM, user(studio, "ann").id, change)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.caller_of(tokens.access)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.refresh(tokens.refresh, ORIGIN)


def test_another_replica_notices_a_change_within_five_seconds(studio: Studio) -> None:
    found, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    studio.services.sessions.caller_of(tokens.access)
    with studio.database.session() as session:
        session.get_one(User, found.id).disabled = True
    studio.clock.advance(5.0)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.caller_of(tokens.access)


def test_a_disabled_user_cannot_log_in(studio: Studio) -> None:
    studio.services.identity.change(audit.SYSTEM, user(studio, "ann").id, Change(disabled=True))
    with pytest.raises(NotAuthenticated):
        studio.services.identity.log_in("ann", PASSWORD, ORIGIN)


def test_an_access_token_lasts_a_quarter_of_an_hour_and_is_renewed(studio: Studio) -> None:
    _, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    assert tokens.access_seconds == 900
    studio.clock.advance(901)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.caller_of(tokens.access)
    renewed = studio.services.sessions.refresh(tokens.refresh, ORIGIN)
    assert studio.services.sessions.caller_of(renewed.access).username == "ann"
    assert renewed.refresh != tokens.refresh


def test_a_used_refresh_token_may_come_again_within_its_grace(studio: Studio) -> None:
    _, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    studio.services.sessions.refresh(tokens.refresh, ORIGIN)
    studio.clock.advance(29)
    again = studio.services.sessions.refresh(tokens.refresh, ORIGIN)
    assert studio.services.sessions.caller_of(again.access).username == "ann"


def test_a_used_refresh_token_that_comes_late_ends_the_whole_login(studio: Studio) -> None:
    _, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    renewed = studio.services.sessions.refresh(tokens.refresh, ORIGIN)
    studio.clock.advance(31)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.refresh(tokens.refresh, ORIGIN)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.refresh(renewed.refresh, ORIGIN)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.caller_of(renewed.access)
    assert len(trail(studio, "session.reuse")) == 1


def test_logging_out_ends_this_login_alone(studio: Studio) -> None:
    _, here = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    _, there = studio.services.identity.log_in("ann", PASSWORD, ELSEWHERE)
    studio.services.identity.log_out(here.access, here.refresh, ORIGIN)
    with pytest.raises(NotAuthenticated):
        studio.services.sessions.caller_of(here.access)
    assert studio.services.sessions.caller_of(there.access).username == "ann"


def test_guessing_is_slowed_by_name_and_address_and_waits_grow(studio: Studio) -> None:
    def wait() -> int:
        with pytest.raises(TooManyRequests) as caught:
            studio.services.identity.log_in("ann", "wrong password", ORIGIN)
        return int(caught.value.detail["retry_after"])

    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            studio.services.identity.log_in("ann", "wrong password", ORIGIN)
    first = wait()
    assert first == 60
    studio.services.identity.log_in("ann", PASSWORD, ELSEWHERE)
    studio.clock.advance(first + 1)
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            studio.services.identity.log_in("ann", "wrong password", ORIGIN)
    assert wait() == 120


def test_one_address_may_not_try_many_names(studio: Studio) -> None:
    with pytest.raises(TooManyRequests):
        for number in range(21):
            with pytest.raises(NotAuthenticated):
                studio.services.identity.log_in(f"name{number}", "wrong password", ORIGIN)


def at_once(studio: Studio, tries: list[tuple[str, str]]) -> list[str]:
    """What became of logins that came together, each in a thread of its own."""
    together = Barrier(len(tries))

    def enter(name: str, password: str) -> str:
        together.wait(60)
        try:
            studio.services.identity.log_in(name, password, ORIGIN)
        except (NotAuthenticated, TooManyRequests) as error:
            return error.code
        return "in"

    with ThreadPoolExecutor(len(tries)) as pool:
        return list(pool.map(enter, *zip(*tries, strict=True)))


def test_many_right_logins_at_once_are_all_let_in(studio: Studio) -> None:
    assert at_once(studio, [("ann", PASSWORD)] * 12) == ["in"] * 12
    everybody = [("ann", PASSWORD), ("root", PASSWORD)] * 12
    assert at_once(studio, everybody) == ["in"] * 24, "successes count for an address no more than for a name"


def test_many_guesses_at_once_gain_nothing(studio: Studio) -> None:
    told = at_once(studio, [("ann", f"wrong password {number}") for number in range(12)])
    assert sorted(told) == ["not_authenticated"] * 5 + ["too_many_requests"] * 7
    with pytest.raises(TooManyRequests):
        studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    studio.services.identity.log_in("ann", PASSWORD, ELSEWHERE)


def test_a_guess_that_another_replica_verified_meanwhile_is_not_told(studio: Studio) -> None:
    """Each replica has turns of its own: what is told is settled in the database."""
    one, other = (LoginThrottle(studio.database, studio.clock) for _ in "ab")
    with one.turn("::1", "ann") as blocked, other.turn("::1", "ann") as also:
        assert (blocked, also) == (0.0, 0.0)
        assert [one.failed("::1", "ann") for _ in range(5)] == [0.0] * 5
        assert other.failed("::1", "ann") == 60.0
        assert other.succeeded("::1", "ann") == 60.0, "the right one came too late"
    studio.clock.advance(60)
    assert other.succeeded("::1", "ann") == 0.0
    assert one.failed("::1", "ann") == 0.0


def test_a_right_password_in_between_begins_the_count_anew(studio: Studio) -> None:
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(NotAuthenticated):
                studio.services.identity.log_in("ann", "wrong password", ORIGIN)
        assert studio.services.identity.log_in("ann", PASSWORD, ORIGIN)[0].username == "ann"


def test_more_logins_at_once_than_there_is_room_for_come_again_and_have_not_tried(studio: Studio) -> None:
    identity = studio.services.identity
    with ExitStack() as taken:
        for _ in range(MOST_IN_LINE):
            taken.enter_context(identity._passwords.in_line())
        for _ in range(10):
            with pytest.raises(TooManyRequests, match="Try again in a few seconds") as told:
                identity.log_in("ann", PASSWORD, ORIGIN)
            assert told.value.detail["retry_after"] == 3
    assert identity.log_in("ann", PASSWORD, ORIGIN)[0].username == "ann"


def test_as_many_passwords_are_hashed_at_once_as_there_are_cores() -> None:
    open_now, inside, most = threading.Event(), [0], [0]
    counting = threading.Lock()

    class Slow(Argon2Hasher):
        def verify(self, password: str | bytes, hash: str | bytes) -> bool:
            with counting:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            assert open_now.wait(60)
            with counting:
                inside[0] -= 1
            return super().verify(password, hash)

    passwords = Passwords(12, Slow(time_cost=1, memory_cost=8, parallelism=1))
    stored, cores = passwords._context.hash(PASSWORD), os.cpu_count() or 1
    found: list[bool] = []
    people = [
        threading.Thread(target=lambda: found.append(passwords.verify(PASSWORD, stored)[0]))
        for _ in range(cores + 3)
    ]
    for each in people:
        each.start()
    eventually(lambda: inside[0] == cores, within=60)
    open_now.set()
    for each in people:
        each.join(60)
    assert found == [True] * (cores + 3) and most[0] == cores


def test_an_api_key_works_until_it_is_revoked_and_is_stored_hashed(studio: Studio) -> None:
    credentials = studio.services.credentials
    ann = credentials.by_password("ann", PASSWORD, ORIGIN)
    key, secret = credentials.make_key(ann, "script", None, None, ORIGIN)
    assert secret not in str(key.__dict__) and key.key_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert credentials.by_bearer(secret).permissions == ann.permissions
    assert credentials.by_password("ann", secret, ORIGIN).username == "ann"
    with pytest.raises(NotAuthenticated):
        credentials.by_password("root", secret, ORIGIN)
    root = credentials.by_password("root", PASSWORD, ORIGIN)
    with pytest.raises(NotFound):
        credentials.revoke_key(root, key.id, ORIGIN)
    credentials.revoke_key(ann, key.id, ORIGIN)
    for use in (
        lambda: credentials.by_bearer(secret),
        lambda: credentials.by_password("ann", secret, ORIGIN),
    ):
        with pytest.raises(NotAuthenticated, match="revoked"):
            use()
    assert credentials.keys_of(ann.user_id) == []
    assert [each.result for each in (*trail(studio, "key.create"), *trail(studio, "key.revoke"))] == [
        "done"
    ] * 2


def test_an_api_key_has_its_scopes_and_its_end(studio: Studio) -> None:
    credentials = studio.services.credentials
    ann = credentials.by_password("ann", PASSWORD, ORIGIN)
    until = studio.clock.now() + 3600
    _, secret = credentials.make_key(ann, "lists", ["models.read"], until, ORIGIN)
    narrow = credentials.by_bearer(secret)
    assert (narrow.permissions, narrow.expires_at) == ({"models.read"}, until)
    with pytest.raises(NotPermitted):
        credentials.make_key(narrow, "wider", ["jobs.submit"], None, ORIGIN)
    with pytest.raises(NotPermitted):
        credentials.make_key(ann, "more", ["users.manage"], None, ORIGIN)
    for scopes, end in ((["everything"], None), (None, studio.clock.now())):
        with pytest.raises(InvalidRequest):
            credentials.make_key(ann, "no", scopes, end, ORIGIN)
    studio.clock.advance(3600)
    with pytest.raises(NotAuthenticated, match="expired"):
        credentials.by_bearer(secret)


def test_an_api_key_ends_with_its_owners_standing(studio: Studio) -> None:
    credentials = studio.services.credentials
    ann = credentials.by_password("ann", PASSWORD, ORIGIN)
    _, secret = credentials.make_key(ann, "script", None, None, ORIGIN)
    studio.services.roles.put(audit.SYSTEM, "looker", "", ["models.read"])
    studio.services.identity.change(audit.SYSTEM, ann.user_id, Change(roles=["looker"]))
    assert credentials.by_bearer(secret).permissions == {"models.read"}, "no more than its owner"
    studio.services.identity.change(audit.SYSTEM, ann.user_id, Change(disabled=True))
    with pytest.raises(NotAuthenticated):
        credentials.by_bearer(secret)


def test_the_trail_says_who_did_what_and_a_failed_change_leaves_none(studio: Studio) -> None:
    before = len(trail(studio, "user.create"))
    with pytest.raises(Conflict):
        studio.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    assert len(trail(studio, "user.create")) == before
    studio.services.identity.create(audit.SYSTEM, "cem", PASSWORD, "designer", ORIGIN)
    entry = trail(studio, "user.create")[-1]
    assert (entry.actor_name if hasattr(entry, "actor_name") else "system") == "system"
    assert PASSWORD not in str(entry.__dict__)


def test_migrations_from_nothing_make_exactly_the_models(database_url: str) -> None:
    database = Database(database_url)
    try:
        upgrade(database)
        with database.engine.connect() as connection:
            assert "users" in inspect(connection).get_table_names()
            context = MigrationContext.configure(connection, opts={"compare_type": False})
            assert compare_metadata(context, Base.metadata) == []
            assert connection.execute(text("select count(*) from users")).scalar() == 0
        upgrade(database)
    finally:
        database.close()
