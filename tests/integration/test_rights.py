"""Roles that stack, teams, and rules on endpoints and models, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, text

from atelier.contract.errors import Conflict, InvalidRequest, NotFound, NotPermitted, UnknownName
from atelier.contract.jobs import JobState
from portal.db.base import Database
from portal.db.identity import User
from portal.db.migrate import _config, upgrade
from portal.db.rights import AccessRule
from portal.db.work import Model
from portal.domain.access import Effect, ObjectKind, Rule, Subject, SubjectKind, may_use
from portal.services import audit
from portal.services.audit import Origin
from portal.services.callers import Caller
from portal.services.identity import Change
from portal.services.permissions import PERMISSIONS, ROLES
from portal.services.ports import EndpointSpec
from portal.services.trail import Wanted
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"
ORIGIN = Origin("r1", "127.0.0.1", "test")
ALLOW, DENY = Effect.ALLOW, Effect.DENY


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    yield made
    made.close()


def person(studio: Studio, name: str, *roles: str) -> Caller:
    studio.services.identity.create(audit.SYSTEM, name, PASSWORD, roles)
    _, tokens = studio.services.identity.log_in(name, PASSWORD, ORIGIN)
    return studio.services.sessions.caller_of(tokens.access)


def model_id(studio: Studio, name: str) -> str:
    with studio.database.reading() as session:
        return session.scalars(select(Model.id).where(Model.name == name)).one()


def rule(
    studio: Studio, kind: ObjectKind, name: str, subject: tuple[SubjectKind, str], effect: Effect
) -> str:
    return studio.services.access.put(audit.SYSTEM, kind, name, *subject, effect).id


# --- Roles.


def test_who_holds_two_roles_may_do_what_either_allows(studio: Studio) -> None:
    studio.services.roles.put(audit.SYSTEM, "auditor", "Reads the trail.", ["audit.read"])
    ann = person(studio, "ann", "designer", "auditor")
    assert ann.roles == ("auditor", "designer") and ann.role == "auditor, designer"
    assert ann.permissions == ROLES["designer"] | {"audit.read"}


def test_a_role_that_changes_or_is_taken_away_counts_at_the_next_request(studio: Studio) -> None:
    studio.services.roles.put(audit.SYSTEM, "auditor", "", ["audit.read", "portal.view"])
    person(studio, "root", "admin")
    studio.services.identity.create(audit.SYSTEM, "ann", PASSWORD, ["designer", "auditor"])
    ann, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    before = studio.services.sessions.caller_of(tokens.access)
    studio.services.roles.put(audit.SYSTEM, "auditor", "", ["portal.view"])
    now = studio.services.sessions.caller_of(tokens.access)
    assert before.may("audit.read") and not now.may("audit.read") and now.may("portal.view")
    assert not studio.services.sessions.still_honoured(before)
    studio.services.identity.change(audit.SYSTEM, ann.id, Change(roles=["designer"]))
    _, tokens = studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    assert not studio.services.sessions.caller_of(tokens.access).may("portal.view")


def test_an_api_key_gives_what_its_owners_roles_give_now(studio: Studio) -> None:
    studio.services.roles.put(audit.SYSTEM, "auditor", "", ["audit.read"])
    ann = person(studio, "ann", "designer", "auditor")
    _, whole = studio.services.credentials.make_key(ann, "whole", None, None, ORIGIN)
    _, narrow = studio.services.credentials.make_key(ann, "narrow", ["audit.read"], None, ORIGIN)
    assert studio.services.credentials.by_bearer(whole).permissions == ann.permissions
    studio.services.roles.put(audit.SYSTEM, "auditor", "", ["portal.view"])
    assert studio.services.credentials.by_bearer(whole).may("portal.view")
    assert studio.services.credentials.by_bearer(narrow).permissions == frozenset()


@pytest.mark.parametrize("name", ["", "Auditor", "1st", "a b", "x" * 33, "a/b"])
def test_a_role_has_a_plain_name(studio: Studio, name: str) -> None:
    with pytest.raises(InvalidRequest):
        studio.services.roles.put(audit.SYSTEM, name, "", ["audit.read"])


def test_roles_that_cannot_be_made_or_removed_say_why(studio: Studio) -> None:
    roles = studio.services.roles
    with pytest.raises(Conflict, match="built in"):
        roles.put(audit.SYSTEM, "admin", "", [])
    with pytest.raises(UnknownName, match=r"jobs\.submit"):
        roles.put(audit.SYSTEM, "maker", "", ["jobs.sumbit"])
    with pytest.raises(NotFound):
        roles.delete(audit.SYSTEM, "maker")
    roles.put(audit.SYSTEM, "maker", "", ["jobs.submit"])
    person(studio, "ann", "maker")
    with pytest.raises(Conflict, match="1 users hold"):
        roles.delete(audit.SYSTEM, "maker")
    assert [(each.name, each.held, each.built_in) for each in roles.listed()] == [
        ("admin", 0, True), ("designer", 0, True), ("maker", 1, False),
    ]  # fmt: skip
    with pytest.raises(UnknownName, match="role"):
        studio.services.identity.create(audit.SYSTEM, "bob", PASSWORD, ["designer", "king"])
    with pytest.raises(InvalidRequest, match="one role"):
        studio.services.identity.create(audit.SYSTEM, "bob", PASSWORD, [])


def test_nobody_gives_takes_or_touches_more_rights_than_they_have(studio: Studio) -> None:
    studio.services.roles.put(audit.SYSTEM, "keeper", "", ["users.manage", "roles.manage"])
    keeper = person(studio, "kim", "designer", "keeper")
    root = person(studio, "root", "admin")
    identity, roles = studio.services.identity, studio.services.roles
    identity.create(keeper, "new", PASSWORD, "designer")
    for attempt in (
        lambda: identity.create(keeper, "evil", PASSWORD, "admin"),
        lambda: identity.change(keeper, keeper.user_id, Change(roles=["admin"])),
        lambda: identity.change(keeper, root.user_id, Change(password="another long password")),
        lambda: identity.change(keeper, root.user_id, Change(disabled=True)),
        lambda: roles.put(keeper, "evil", "", ["models.manage"]),
        lambda: roles.put(keeper, "keeper", "", sorted(PERMISSIONS)),
    ):
        with pytest.raises(NotPermitted, match="rights that you do not have"):
            attempt()
    assert {each.username: each.roles for each in identity.users()}["root"] == ("admin",)
    assert identity.log_in("root", PASSWORD, ORIGIN)


def test_two_administrators_who_demote_each_other_leave_one(studio: Studio) -> None:
    first, second = person(studio, "one", "admin"), person(studio, "two", "admin", "designer")
    studio.services.identity.change(first, second.user_id, Change(roles=["designer"]))
    with pytest.raises(Conflict, match="last administrator"):
        studio.services.identity.change(audit.SYSTEM, first.user_id, Change(roles=["designer"]))


def test_roles_of_before_are_kept_by_the_migration(database_url: str) -> None:
    database = Database(database_url)
    with database.engine.begin() as connection:
        command.upgrade(_config(connection), "0006")
        connection.execute(
            text(
                "INSERT INTO users (id, username, password_hash, role, disabled, epoch, settings, "
                "created_at) VALUES ('u', 'ann', '-', 'admin', false, 0, '{}', 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO session_families (id, user_id, created_at, expires_at, ip, user_agent) "
                "VALUES ('f', 'u', 1, 2, '', '')"
            )
        )
    assert upgrade(database)
    with database.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM session_families")).scalar() == 1
        command.downgrade(_config(connection), "0006")
        assert connection.execute(text("SELECT role FROM users")).scalars().all() == ["admin"]
    assert upgrade(database)
    with database.reading() as session:
        assert session.scalars(select(User)).one().roles == ("admin",)
    database.close()


# --- Teams.


def test_a_team_has_the_members_it_is_given_and_says_who_came_and_went(studio: Studio) -> None:
    for name in ("ann", "bob", "eve"):
        studio.user(name)
    teams = studio.services.teams
    made = teams.create(audit.SYSTEM, " Posters ", "Autumn", ["Bob", "ann"])
    assert (made.name, made.members) == ("Posters", ("ann", "bob"))
    changed = teams.change(audit.SYSTEM, made.id, members=["ann", "eve"])
    assert changed.members == ("ann", "eve") and changed.description == "Autumn"
    [entry] = studio.services.trail.entries(Wanted(action="team.change"))
    assert entry.details == {"joined": ["eve"], "left": ["bob"]}
    teams.create(audit.SYSTEM, "Films")
    with pytest.raises(Conflict, match="already"):
        teams.create(audit.SYSTEM, "Posters")
    with pytest.raises(Conflict, match="already"):
        teams.change(audit.SYSTEM, made.id, name="Films")
    with pytest.raises(UnknownName, match="Did you mean 'ann'"):
        teams.change(audit.SYSTEM, made.id, members=["anna"])
    teams.delete(audit.SYSTEM, made.id)
    with pytest.raises(NotFound):
        teams.get(made.id)
    assert [each.name for each in teams.listed()] == ["Films"]


# --- Rules.

ANN = Subject("ann", frozenset({"posters"}), frozenset({"designer"}))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), True),
        (((SubjectKind.USER, "ann", DENY),), False),
        (((SubjectKind.USER, "bob", DENY),), True),
        (((SubjectKind.USER, "bob", ALLOW),), False),
        (((SubjectKind.USER, "ann", ALLOW),), True),
        (((SubjectKind.TEAM, "posters", ALLOW),), True),
        (((SubjectKind.TEAM, "films", ALLOW), (SubjectKind.ROLE, "designer", ALLOW)), True),
        (((SubjectKind.TEAM, "posters", ALLOW), (SubjectKind.USER, "ann", DENY)), False),
        (((SubjectKind.USER, "ann", ALLOW), (SubjectKind.ROLE, "designer", DENY)), False),
        (((SubjectKind.EVERYBODY, "*", DENY),), False),
        (((SubjectKind.EVERYBODY, "*", ALLOW), (SubjectKind.TEAM, "films", DENY)), True),
    ],
)
def test_a_denial_beats_all_and_what_is_allowed_by_name_is_closed_to_others(
    rules: tuple[tuple[SubjectKind, str, Effect], ...], expected: bool
) -> None:
    assert may_use(ANN, [Rule(*each) for each in rules]) is expected


def test_a_model_that_is_closed_to_somebody_does_not_exist_for_them(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.checkpoint("secret")
    secret = model_id(studio, "secret")
    rule(studio, ObjectKind.MODEL, secret, (SubjectKind.USER, ann.user_id), ALLOW)
    wanting: dict[str, Any] = {"override_settings": {"sd_model_checkpoint": "secret"}}
    assert studio.view(ann, studio.submit(ann, **wanting)).state is JobState.QUEUED
    with pytest.raises(UnknownName) as caught:
        studio.submit(bob, **wanting)
    assert "Known: 'first" in caught.value.message and "secret [" not in caught.value.message
    assert studio.submit(studio.user("root", "admin"), **wanting)


def test_a_team_or_a_role_opens_a_model_for_its_people(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.checkpoint("film")
    team = studio.services.teams.create(audit.SYSTEM, "Films", members=["ann"])
    rule(studio, ObjectKind.MODEL, model_id(studio, "film"), (SubjectKind.TEAM, team.id), ALLOW)
    wanting: dict[str, Any] = {"override_settings": {"sd_model_checkpoint": "film"}}
    assert studio.submit(ann, **wanting)
    with pytest.raises(UnknownName):
        studio.submit(bob, **wanting)
    studio.services.teams.delete(audit.SYSTEM, team.id)
    assert studio.services.access.listed() == [] and studio.submit(bob, **wanting)


def test_an_endpoint_that_is_closed_to_somebody_is_neither_named_nor_chosen(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big"))
    rule(studio, ObjectKind.ENDPOINT, "local", (SubjectKind.USER, bob.user_id), DENY)
    with pytest.raises(UnknownName, match="endpoint"):
        studio.submit(bob, endpoint="local")
    studio.submit(bob)
    studio.submit(ann, endpoint="local")
    assert {each.endpoint for each in studio.turn()} == {"big", "local"}
    rule(studio, ObjectKind.ENDPOINT, "big", (SubjectKind.ROLE, "designer"), DENY)
    with pytest.raises(NotPermitted, match="any of the studio's endpoints"):
        studio.submit(bob)


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_what_is_taken_away_while_a_job_waits_is_refused_as_it_is_sent(
    studio: Studio, kind: ObjectKind
) -> None:
    ann = studio.user("ann")
    job = studio.submit(ann, endpoint="local")
    about = "local" if kind is ObjectKind.ENDPOINT else model_id(studio, "first")
    lifted = rule(studio, kind, about, (SubjectKind.ROLE, "designer"), DENY)
    assert studio.turn() == []
    seen = studio.view(ann, job)
    assert seen.state is JobState.FAILED and seen.error is not None
    assert seen.error["code"] == "not_permitted" and "any more" in seen.error["message"]
    studio.services.access.delete(audit.SYSTEM, lifted)
    studio.submit(ann, endpoint="local")
    assert len(studio.turn()) == 1


def test_rules_are_told_in_words_replaced_and_gone_with_what_they_are_about(studio: Studio) -> None:
    ann = studio.user("ann")
    first = model_id(studio, "first")
    kept = rule(studio, ObjectKind.MODEL, first, (SubjectKind.USER, ann.user_id), ALLOW)
    assert rule(studio, ObjectKind.MODEL, first, (SubjectKind.USER, ann.user_id), DENY) == kept
    [view] = studio.services.access.listed(ObjectKind.MODEL, first)
    assert (view.object_name, view.subject_name, view.effect) == ("first", "ann", DENY)
    entries = studio.services.trail.entries(Wanted(action="access."))
    assert [(each.action, each.object, each.subject) for each in entries] == [
        ("access.deny", "model:first", "ann"),
        ("access.allow", "model:first", "ann"),
    ]
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big"))
    rule(studio, ObjectKind.ENDPOINT, "big", (SubjectKind.EVERYBODY, "ignored"), DENY)
    studio.work.endpoints.delete(audit.SYSTEM, "big")
    studio.work.desk.delete(audit.SYSTEM, first)
    with studio.database.reading() as session:
        assert session.scalars(select(AccessRule)).all() == []
    for wrong in ((ObjectKind.MODEL, "no such", SubjectKind.ROLE, "designer"),
                  (ObjectKind.ENDPOINT, "local", SubjectKind.TEAM, "no such")):  # fmt: skip
        with pytest.raises(InvalidRequest, match="There is no"):
            studio.services.access.put(audit.SYSTEM, *wrong, DENY)
    with pytest.raises(NotFound):
        studio.services.access.delete(audit.SYSTEM, kept)
