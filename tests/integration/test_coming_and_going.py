"""Invitations, password links, and users who leave: what becomes of what was theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from atelier.contract import keys
from atelier.contract.errors import (
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    UnknownName,
)
from atelier.contract.jobs import JobState
from atelier.stylefile import PromptStyle
from portal.app import create_app
from portal.db.identity import User
from portal.db.work import Attempt, IdempotencyKey, Job, Part, Picture
from portal.services import audit
from portal.services.audit import Origin
from portal.services.callers import Caller
from portal.services.identity import Change
from portal.services.styles import Scope
from portal.services.trail import Wanted
from tests.jobs_studio import Studio

PASSWORD, OTHER = "a long enough password", "another long password"
ORIGIN = Origin("r1", "127.0.0.1", "test")
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    for name, role in (("root", "admin"), ("ann", "designer"), ("bob", "designer")):
        made.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
    yield made
    made.close()


def caller(studio: Studio, name: str, password: str = PASSWORD) -> Caller:
    _, tokens = studio.services.identity.log_in(name, password, ORIGIN)
    return studio.services.sessions.caller_of(tokens.access)


def finished(studio: Studio, who: Caller, **payload: int) -> str:
    job = studio.submit(who, **payload)
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    assert studio.view(who, job).state is JobState.SUCCEEDED
    return job


# --- Coming.


def test_an_invitation_makes_one_account_with_its_roles_and_teams(studio: Studio) -> None:
    links, root = studio.services.invitations, caller(studio, "root")
    team = studio.services.teams.create(root, "Films")
    offer, secret = links.invite(root, ["designer"], [team.id])
    assert (links.look(secret).roles, links.look(secret).teams) == (("designer",), ("Films",))
    for name, password, error in (("ann", OTHER, Conflict), ("new", "short", InvalidRequest)):
        with pytest.raises(error):
            links.join(secret, name, password, ORIGIN)
    made = links.join(secret, "new", OTHER, ORIGIN)
    assert made.roles == ("designer",) and caller(studio, "new", OTHER).may("jobs.submit")
    assert studio.services.teams.get(team.id).members == ("new",)
    with pytest.raises(NotFound, match="does not work any more"):
        links.join(secret, "second", OTHER, ORIGIN)
    assert links.open() == [] and offer.made_by == "root"
    [entry] = studio.services.trail.entries(Wanted(action="user.create"), limit=1)
    assert (entry.actor_name, entry.subject) == ("invitation by root", "new")


def test_a_link_ends_with_its_time_or_as_it_is_taken_back(studio: Studio) -> None:
    links, root = studio.services.invitations, caller(studio, "root")
    _, short = links.invite(root, ["designer"], hours=1)
    offer, taken = links.invite(root, ["designer"])
    links.take_back(root, offer.id)
    studio.clock.advance(HOUR + 1)
    for secret in (short, taken, "", "nonsense"):
        with pytest.raises(NotFound):
            links.look(secret)
    with pytest.raises(NotFound):
        links.take_back(root, offer.id)


def test_nobody_invites_to_more_than_they_have(studio: Studio) -> None:
    studio.services.roles.put(audit.SYSTEM, "keeper", "", ["users.manage"])
    studio.services.identity.create(audit.SYSTEM, "kim", PASSWORD, ["designer", "keeper"])
    kim, links = caller(studio, "kim"), studio.services.invitations
    links.invite(kim, ["designer"])
    root = studio.services.identity.users()[-1]
    with pytest.raises(NotPermitted):
        links.invite(kim, ["admin"])
    with pytest.raises(NotPermitted):
        links.reset(kim, root.id)
    for roles, teams, hours, error in (
        (["king"], [], 1.0, UnknownName), ([], [], 1.0, InvalidRequest),
        (["designer"], ["none"], 1.0, NotFound), (["designer"], [], 0.0, InvalidRequest),
    ):  # fmt: skip
        with pytest.raises(error):
            links.invite(kim, roles, teams, hours)


def test_a_password_link_sets_a_password_once_and_ends_every_login(studio: Studio) -> None:
    links, root, ann = studio.services.invitations, caller(studio, "root"), caller(studio, "ann")
    _, first = links.reset(root, ann.user_id)
    offer, second = links.reset(root, ann.user_id)
    assert offer.username == "ann"
    with pytest.raises(NotFound):
        links.look(first)
    with pytest.raises(InvalidRequest):
        links.set_password(second, "short", ORIGIN)
    links.set_password(second, OTHER, ORIGIN)
    assert not studio.services.sessions.still_honoured(ann)
    with pytest.raises(NotAuthenticated):
        studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    assert caller(studio, "ann", OTHER).user_id == ann.user_id
    for wrong in (links.set_password, lambda *given: links.join(second, "x", *given[1:])):
        with pytest.raises(NotFound):
            wrong(second, PASSWORD, ORIGIN)


# --- Going.


def test_what_was_a_users_becomes_the_heirs_at_once(studio: Studio) -> None:
    ann, bob = caller(studio, "ann"), caller(studio, "bob")
    job = finished(studio, ann, batch_size=2)
    waiting = studio.submit(ann)
    for who in (ann, bob):
        studio.services.styles.save(who, Scope.OWN, PromptStyle("warm", who.username, ""), ORIGIN)
    studio.services.departures.hand_over(caller(studio, "root"), ann.user_id, "Bob")
    assert {each.username for each in studio.services.identity.users()} == {"root", "bob"}
    assert len(studio.view(bob, job).pictures) == 2
    styles = {each.name: each.prompt for each in studio.services.styles.listed(bob, Scope.OWN)}
    assert styles == {"warm": "bob", "warm (ann)": "ann"}
    [sent] = studio.turn()
    studio.fleet.succeed(sent)
    studio.turn()
    assert studio.view(bob, waiting).state is JobState.SUCCEEDED
    [entry] = studio.services.trail.entries(Wanted(action="user.hand_over"))
    assert (entry.subject, entry.details) == ("ann", {"to": "Bob"})


def test_a_planned_deletion_takes_everything_in_its_time_and_nothing_before(studio: Studio) -> None:
    ann, root = caller(studio, "ann"), caller(studio, "root")
    job = finished(studio, ann)
    studio.submit(ann, key="again")
    kept = finished(studio, caller(studio, "bob"))
    studio.services.departures.schedule(root, ann.user_id, 7)
    with pytest.raises(NotAuthenticated):
        studio.services.identity.log_in("ann", PASSWORD, ORIGIN)
    studio.turn()
    studio.clock.advance(7 * DAY - 60)
    studio.turn()
    assert list(studio.store.list(f"jobs/{job}/"))
    studio.clock.advance(120)
    studio.turn()
    with studio.database.reading() as session:
        for table in (Job, Part, Attempt, Picture, IdempotencyKey):
            mine = select(func.count()).select_from(table).where(table.owner_id == ann.user_id)
            assert session.scalar(mine) == 0, table
        assert session.get(User, ann.user_id) is None
    assert not list(studio.store.list(f"jobs/{job}/")) and list(studio.store.list(f"jobs/{kept}/"))
    [entry] = studio.services.trail.entries(Wanted(action="user.delete", actor="system"))
    assert entry.subject == "ann" and studio.services.trail.verify().broken is None


def test_an_account_that_is_enabled_again_keeps_everything(studio: Studio) -> None:
    ann, root = caller(studio, "ann"), caller(studio, "root")
    job = finished(studio, ann)
    studio.services.departures.schedule(root, ann.user_id, 1)
    studio.services.identity.change(root, ann.user_id, Change(disabled=False))
    studio.clock.advance(2 * DAY)
    studio.turn()
    assert studio.view(caller(studio, "ann"), job).state is JobState.SUCCEEDED


def test_running_work_ends_before_its_owner_is_deleted(studio: Studio) -> None:
    ann, root = caller(studio, "ann"), caller(studio, "root")
    studio.submit(ann)
    [sent] = studio.turn()
    studio.fleet.progress(sent, seq=1)
    studio.turn()
    studio.services.departures.schedule(root, ann.user_id, 0)
    studio.turn()
    with studio.database.reading() as session:
        assert session.get(User, ann.user_id) is not None
    studio.fleet.succeed(sent, stopped=True)
    studio.turn()
    studio.turn()
    with studio.database.reading() as session:
        assert session.get(User, ann.user_id) is None
    assert studio.store.stat(keys.result(sent.job, sent.part, sent.attempt)) is None


def test_who_cannot_be_deleted_and_who_cannot_inherit(studio: Studio) -> None:
    departures, root, ann = studio.services.departures, caller(studio, "root"), caller(studio, "ann")
    with pytest.raises(Conflict, match="your own account"):
        departures.schedule(root, root.user_id, 1)
    with pytest.raises(Conflict, match="last administrator"):
        departures.hand_over(audit.SYSTEM, root.user_id, "bob")
    for heir, error in (("ann", InvalidRequest), ("bobb", UnknownName)):
        with pytest.raises(error):
            departures.hand_over(root, ann.user_id, heir)
    studio.services.identity.change(root, caller(studio, "bob").user_id, Change(disabled=True))
    with pytest.raises(Conflict, match="disabled"):
        departures.hand_over(root, ann.user_id, "bob")
    with pytest.raises(NotFound):
        departures.schedule(root, "nobody", 1)
    assert caller(studio, "ann").user_id == ann.user_id


@pytest.mark.parametrize("gone", ["ann", "bob"])
def test_who_is_deleted_while_they_are_handed_over_is_named_and_nothing_is_lost(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    departures, identity = studio.services.departures, studio.services.identity
    root, ann = caller(studio, "root"), caller(studio, "ann")
    job, left = finished(studio, ann), caller(studio, gone).user_id
    really = identity.change

    def meanwhile(*arguments: object) -> object:
        done = really(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(identity, "change", really)
        departures.hand_over(root, left, "cid")
        return done

    identity.create(audit.SYSTEM, "cid", PASSWORD, "designer")
    monkeypatch.setattr(identity, "change", meanwhile)
    with pytest.raises(Conflict, match=f"'{gone}' was deleted meanwhile"):
        departures.hand_over(root, ann.user_id, "bob")
    assert {each.username for each in identity.users()} == {"root", "ann", "bob", "cid"} - {gone}
    assert len(studio.view(caller(studio, "cid") if gone == "ann" else ann, job).pictures) == 1


def test_over_http_a_guest_comes_in_by_the_link_and_is_logged_in(studio_url: str, tmp_path: Path) -> None:
    studio = Studio(studio_url, tmp_path)
    for name, role in (("root", "admin"), ("ann", "designer")):
        studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
    with TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000") as client:
        answer = client.post("/api/v1/auth/token", json={"username": "root", "password": PASSWORD})
        root = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        made = client.post("/api/v1/users/invitations", json={}, headers=root).json()
        address, _, secret = made["url"].partition("?link=")
        assert address == "http://127.0.0.1:8000/portal/join" and made["roles"] == ["designer"]
        listed = client.get("/api/v1/users/invitations", headers=root).json()
        assert [each["id"] for each in listed] == [made["id"]] and secret not in str(listed)
        shown = client.get(made["url"])
        assert "Welcome to Atelier" in shown.text and shown.headers["referrer-policy"] == "no-referrer"
        form = {"link": secret, "username": "<b>", "password": OTHER, "again": OTHER}
        assert "&lt;b&gt;" in client.post("/portal/join", data=form).text
        mistyped = client.post("/portal/join", data={**form, "username": "guest", "again": "x"})
        assert mistyped.status_code == 422 and "differ" in mistyped.text and 'value="guest"' in mistyped.text
        joined = client.post("/portal/join", data={**form, "username": "guest"}, follow_redirects=False)
        assert joined.status_code == 303 and client.get("/api/v1/me").json()["username"] == "guest"
        assert client.get(made["url"]).status_code == 404
        guest = client.get("/api/v1/me").json()["id"]
        away = client.delete(f"/api/v1/users/{guest}?heir=ann", headers=root)
        assert away.json() == {"deleted_at": None, "heir": "ann"}
        assert client.get("/api/v1/me").status_code == 401
        ann = next(
            each for each in client.get("/api/v1/users", headers=root).json() if each["username"] == "ann"
        )
        later = client.delete(f"/api/v1/users/{ann['id']}?days=2", headers=root).json()
        assert later["deleted_at"] == pytest.approx(studio.clock.now() + 2 * DAY)
        for query in ("days=-1", "days=1e9", "days=nan"):
            assert client.delete(f"/api/v1/users/{ann['id']}?{query}", headers=root).status_code == 422
    studio.close()
