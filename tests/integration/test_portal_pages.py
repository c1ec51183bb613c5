"""The portal's pages about people, access and endpoints, as a browser's forms use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.contract.jobs import PartState
from portal.app import create_app
from portal.db.work import Job, Part
from portal.domain.quotas import Quota
from portal.services import audit
from portal.services.callers import Caller
from portal.services.permissions import ROLES
from portal.services.ports import EndpointState, EndpointStatus, Submission
from tests.jobs_studio import Studio
from tests.waiting import eventually

PASSWORD, OTHER = "a long enough password", "another long password"
ORIGIN = "http://127.0.0.1:8000"
ADMINISTRATORS = ("users", "roles", "teams", "access", "endpoints", "audit", "jobs")
SAME = {"Sec-Fetch-Site": "same-origin"}


class Desk:
    """root, an administrator, at the portal's pages; ann is a designer."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.studio, self.services, self.client = studio, studio.services, client
        for name, role in (("root", "admin"), ("ann", "designer")):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
        self.log_in("root")

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        self.client.cookies.clear()
        form = {"username": name, "password": password, "next": "/portal/"}
        return self.client.post("/portal/login", data=form, headers=SAME)

    def get(self, path: str) -> str:
        answer = self.client.get(f"/portal/{path}")
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, status: int = 200, **form: Any) -> str:
        """What the page says after a form was sent."""
        answer = self.client.post(f"/portal/{path}", data=form, headers=SAME)
        assert answer.status_code == status, answer.text
        return answer.text

    def id_of(self, name: str) -> str:
        return next(each.id for each in self.services.identity.users() if each.username == name)

    def job_of(self, name: str, sent: int = 1, **payload: Any) -> str:
        """A job of somebody's, `sent` parts of which are at work: the portal's threads send them."""
        self.services.work.endpoints.observe()
        caller = Caller(self.id_of(name), name, ("designer",), ROLES["designer"])
        job_id, fleet = self.studio.submit(caller, **payload), self.studio.fleet

        def parts() -> list[Submission]:
            return [each for each in fleet.submissions if each.job == job_id]

        eventually(lambda: len(parts()) == sent, within=60)
        for each in parts():
            fleet.progress(each, 1, step=4)
        states = [PartState.RUNNING] * sent
        eventually(lambda: [p.state for p in self.studio.parts(job_id)][:sent] == states, within=60)
        return job_id

    def roles_of(self, name: str) -> tuple[str, ...]:
        return next(each.roles for each in self.services.identity.users() if each.username == name)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    studio = Studio(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path)
    with TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000)) as client:
        yield Desk(studio, client)
    studio.close()


def test_every_page_of_the_menu_opens_and_a_designer_sees_none_of_the_administrators(desk: Desk) -> None:
    menu = re.findall(r'<a href="(/portal/[a-z]+)"', desk.get(""))
    assert {f"/portal/{name}" for name in ("users", "roles", "teams", "access", "endpoints", "audit")} <= set(
        menu
    )
    for path in menu:
        assert "aria-current" in desk.get(path.removeprefix("/portal/"))
    desk.log_in("ann")
    for path in ADMINISTRATORS:
        assert desk.client.get(f"/portal/{path}").status_code == 403
        assert f'href="/portal/{path}"' not in desk.get("")


def test_an_invitation_is_shown_once_and_brings_somebody_in(desk: Desk) -> None:
    shown = desk.post("users/invitations", 201, roles=["designer"])
    [link] = re.findall(r'value="(http://127\.0\.0\.1:8000/portal/join\?link=[^"]+)"', shown)
    secret = link.partition("link=")[2]
    assert "Links that still work" in desk.get("users") and secret not in desk.get("users")
    desk.client.cookies.clear()
    joined = desk.client.post(
        "/portal/join",
        data={"link": secret, "username": "mira", "password": OTHER, "again": OTHER},
        headers=SAME,
    )
    assert joined.status_code == 200 and desk.roles_of("mira") == ("designer",)
    desk.log_in("root")
    assert "Links that still work" not in desk.get("users")
    desk.post("users/invitations", 201, roles=["designer"])
    [offer] = desk.services.invitations.open()
    assert "does not work any more" in desk.post(f"users/invitations/{offer.id}")


def test_a_users_roles_password_and_standing_are_changed_on_the_page(desk: Desk) -> None:
    ann = desk.id_of("ann")
    assert "roles were changed" in desk.post(f"users/{ann}", what="roles", roles=["admin", "designer"])
    assert desk.roles_of("ann") == ("admin", "designer")
    assert "disabled" in desk.post(f"users/{ann}", what="disabled")
    assert "enabled again" in desk.post(f"users/{ann}", what="enabled")
    assert "/portal/join?link=" in desk.post(f"users/{ann}", 201, what="link")
    assert "password was set" in desk.post(f"users/{ann}", what="password", password=OTHER)
    assert desk.log_in("ann", OTHER).status_code == 200


def test_a_user_is_deleted_later_or_now_with_an_heir(desk: Desk) -> None:
    assert "created" in desk.post("users", username="mira", password=PASSWORD, roles=["designer"])
    ann = desk.id_of("ann")
    assert "will be deleted" in desk.post(f"users/{ann}", what="later", days="20")
    assert "deleted on 20" in desk.get("users")
    assert "heir" in desk.post(f"users/{ann}", what="heir", heir="mira")
    assert [each.username for each in desk.services.identity.users()] == ["mira", "root"]


@pytest.mark.parametrize(
    ("path", "form", "status", "said"),
    [
        ("users", {"username": "ann", "password": PASSWORD, "roles": ["designer"]}, 409, "already a user"),
        ("users", {"username": "<b>", "password": PASSWORD, "roles": ["designer"]}, 422, "&lt;b&gt;"),
        ("users", {"username": "eve", "password": "short", "roles": ["designer"]}, 422, 'value="eve"'),
        ("users/nobody", {"what": "disabled"}, 404, "no such user"),
        ("users/{root}", {"what": "disabled"}, 409, "last administrator"),
        ("users/{root}", {"what": "later"}, 409, "your own account"),
        ("users/{ann}", {"what": "heir", "heir": "nobody"}, 422, "no user named"),
        ("users/{ann}", {"what": "dance"}, 422, "nothing that can be done"),
        ("users/{ann}", {"what": "roles", "roles": ["king"]}, 422, "no role named"),
        ("users/invitations", {"roles": ["king"]}, 422, "no role named"),
        ("users/invitations/none", {}, 404, "no such link"),
        ("roles", {"name": "Big Boss", "permissions": ["audit.read"]}, 422, 'value="Big Boss"'),
        ("roles", {"name": "admin", "what": "delete"}, 409, "built in"),
        ("teams", {"name": ""}, 422, "printable characters"),
        ("teams", {"team_id": "none", "what": "delete"}, 404, "no such team"),
        ("access/rules", {"object": "planet:x", "subject": "everybody:*"}, 422, "Choose what"),
        ("access/rules", {"object": "model:x", "subject": "everybody:*"}, 422, "no model"),
        ("access/rules", {"rule_id": "none"}, 404, "no such rule"),
        ("access/quotas", {"subject": "everybody:*", "pictures_a_day": "many"}, 422, "no whole number"),
        ("access/quotas", {"subject": "user:none", "what": "delete"}, 404, "no such quota"),
        ("access/weights", {"subject": "everybody:*", "weight": "much"}, 422, "no number"),
        ("access/weights", {"subject": "everybody:*", "weight": "nan"}, 422, "from 0.1 to 100"),
        ("access/weights", {"subject": "user:none", "what": "delete"}, 404, "no such share"),
        ("endpoints", {"name": "local"}, 409, "already an endpoint"),
        ("endpoints", {"name": "a b"}, 422, "letters, digits and hyphens"),
        ("endpoints", {"name": "x", "min_instances": "3", "max_instances": "2"}, 422, "must not exceed"),
        ("endpoints", {"name": "none", "what": "deleted"}, 404, "no endpoint named"),
    ],
)
def test_what_cannot_be_done_is_said_on_the_same_page(
    desk: Desk, path: str, form: dict[str, Any], status: int, said: str
) -> None:
    path = path.format(root=desk.id_of("root"), ann=desk.id_of("ann"))
    shown = desk.post(path, status, **form)
    assert said in shown and "<h1>" in shown


def test_a_role_is_made_changed_and_deleted_on_the_page(desk: Desk) -> None:
    assert "kept" in desk.post("roles", name="auditor", description="Reads.", permissions=["audit.read"])
    assert re.search(r'value="audit.read" checked>', desk.get("roles"))
    desk.post("roles", name="auditor", description="Reads.", permissions=["portal.view"])
    roles = {each.name: each.permissions for each in desk.services.roles.listed()}
    assert roles["auditor"] == ("portal.view",) and set(roles["designer"]) == ROLES["designer"]
    assert "gone" in desk.post("roles", name="auditor", what="delete")
    assert "auditor" not in desk.get("roles")


def test_a_team_is_made_changed_and_deleted_on_the_page(desk: Desk) -> None:
    assert "kept" in desk.post("teams", name="Films", members=["ann"])
    [team] = desk.services.teams.listed()
    desk.post("teams", team_id=team.id, name="Moving pictures", description="All", members=["ann", "root"])
    [team] = desk.services.teams.listed()
    assert (team.name, team.members) == ("Moving pictures", ("ann", "root"))
    assert "gone" in desk.post("teams", team_id=team.id, what="delete")
    assert desk.services.teams.listed() == []


def test_rules_and_quotas_are_made_and_lifted_on_the_page(desk: Desk) -> None:
    assert "No rules" in desk.get("access") and "No quotas" in desk.get("access")
    ann = desk.id_of("ann")
    assert "holds" in desk.post("access/rules", object="endpoint:local", subject=f"user:{ann}", effect="deny")
    [rule] = desk.services.access.listed()
    assert (rule.object_name, rule.subject_name, rule.effect) == ("local", "ann", "deny")
    quota = {"unfinished_jobs": "3", "gpu_seconds_a_day": " 60 ", "storage_mib": "2"}
    assert "3</td>" in desk.post("access/quotas", subject="role:designer", **quota)
    [kept] = desk.services.quotas.listed()
    assert kept.quota == Quota(unfinished_jobs=3, gpu_seconds_a_day=60, storage_bytes=2 * 2**20)
    desk.post("access/rules", rule_id=rule.id)
    desk.post("access/quotas", subject="role:designer", what="delete")
    assert desk.services.access.listed() == [] == desk.services.quotas.listed()


def test_weights_are_set_and_lifted_on_the_page(desk: Desk) -> None:
    assert "No weights" in desk.get("access")
    assert "2.5</td>" in desk.post("access/weights", subject="role:designer", weight=" 2.5 ")
    [kept] = desk.services.shares.listed()
    assert (kept.subject_name, kept.weight) == ("designer", 2.5)
    desk.post("access/weights", subject="role:designer", what="delete")
    assert desk.services.shares.listed() == []


def test_an_endpoint_is_created_changed_and_deleted_on_the_page(desk: Desk) -> None:
    numbers = {"min_instances": "0", "max_instances": "3", "slots": "5", "idle_seconds": "60", "threads": "2"}
    assert "was created" in desk.post("endpoints", name="big", **numbers)
    spec = desk.services.work.endpoints.get("big").spec
    assert (spec.min_instances, spec.max_instances, spec.slots, spec.threads) == (0, 3, 5, 2)
    assert "was changed" in desk.post("endpoints", name="big", what="changed", **{**numbers, "slots": "6"})
    assert desk.services.work.endpoints.get("big").spec.slots == 6
    assert "is gone" in desk.post("endpoints", name="big", what="deleted")
    assert [each.spec.name for each in desk.services.work.endpoints.listed()] == ["local"]


def test_a_form_of_another_site_changes_nothing(desk: Desk) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
    for path, form in (("users", {"username": "eve", "password": PASSWORD}), ("teams", {"name": "Evil"})):
        assert desk.client.post(f"/portal/{path}", data=form, headers=foreign).status_code == 403
    assert desk.services.teams.listed() == [] and len(desk.services.identity.users()) == 2


def test_settings_are_set_locked_found_and_undone_on_the_page(desk: Desk) -> None:
    assert "Nothing was ever changed here." in desk.get("settings")
    shown = desk.post("settings", key="CLIP_stop_at_last_layers", value="2")
    assert "holds from the next request" in shown and 'value="2"' in shown
    desk.post("settings", scope="platform", key="eta_noise_seed_delta", value="31337")
    locked = desk.post("settings", scope="platform", key="eta_noise_seed_delta", what="lock")
    assert "Set free" in locked
    mine = desk.get("settings?search=ensd+delta") + desk.get("settings?search=noise_seed")
    assert "No setting is called so." in mine and "31337" in mine and "locked" in mine
    refused = desk.post("settings", 409, key="eta_noise_seed_delta", value="1")
    assert "locked" in refused
    desk.log_in("ann")
    assert "everybody" not in re.findall(r"<option[^>]*>([^<]*)", desk.get("settings"))
    assert "31337" in desk.get("settings?search=noise_seed")
    for scope in ("platform", "none"):
        desk.post("settings", 403, scope=scope, key="eta_noise_seed_delta", value="1")
        assert desk.client.get(f"/portal/settings?scope={scope}").status_code == 403
    desk.log_in("root")
    desk.post("settings", scope="platform", key="eta_noise_seed_delta", what="free")
    undone = desk.post("settings/undo", scope="platform", version="0")
    assert "as they were then" in undone and "31337" not in undone
    assert "back to version 0" in undone


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({"key": "CLIP_stop_at_last_layers", "value": "many"}, 422, "is no number"),
        ({"key": "CLIP_stop_at_last_layers", "value": "[" * 9000}, 422, "is no number"),
        ({"key": "CLIP_stop_at_last_layers", "value": "99"}, 422, "CLIP_stop_at_last_layers"),
        ({"key": "no_such_setting", "value": "1"}, 422, "no_such_setting"),
        ({"scope": "none", "key": "eta", "value": "1"}, 404, "no such"),
    ],
)
def test_a_setting_that_cannot_be_kept_is_said(
    desk: Desk, form: dict[str, str], status: int, said: str
) -> None:
    assert said in desk.post("settings", status, **form)


def test_the_overview_says_what_runs_waits_and_costs_and_a_designer_sees_their_own(desk: Desk) -> None:
    desk.services.work.endpoints.update(audit.SYSTEM, "local", {"price_hour": 1.8, "slots": 1})
    desk.studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 2, "", 2)
    job = desk.job_of("ann", sent=2, n_iter=3)
    desk.studio.clock.advance(20)
    desk.services.work.endpoints.observe()
    shown = desk.get("")
    tiles = dict(re.findall(r'muted">([^<]+)</span><strong>([^<]+)', shown))
    assert (tiles["In work"], tiles["Waiting"], tiles["Workers"]) == ("2", "1", "2")
    assert (tiles["Costs now"], tiles["Today"]) == ("3.60", "0.02")
    assert f"/portal/jobs/{job}" in shown and "nobody (idle)" in shown and "in service" in shown
    desk.log_in("ann")
    shown = desk.get("")
    assert "Costs now" not in shown and "Stop" not in shown and job in shown


def test_jobs_are_found_by_state_user_and_endpoint_and_each_tells_its_way(desk: Desk) -> None:
    job = desk.job_of("ann")
    for found in ("jobs?user=ANN", "jobs?state=running&endpoint=local", "jobs?state=active"):
        assert f"/portal/jobs/{job}" in desk.get(found)
    for missed in ("jobs?user=root", "jobs?state=failed", "jobs?endpoint=none", "mine"):
        assert job not in desk.get(missed)
    shown = desk.get(f"jobs/{job}")
    assert "text-to-image of ann" in shown and "Skip" in shown and "first.safetensors" in shown
    assert desk.client.get("/portal/jobs/none").status_code == 404
    desk.log_in("ann")
    assert job in desk.get("mine?state=active") and "ann" in desk.get(f"jobs/{job}")


def test_a_job_is_stopped_on_the_page_it_was_seen_on_and_anothers_is_not_there(desk: Desk) -> None:
    job = desk.job_of("ann")
    back = "/portal/jobs?state=active"
    assert "finished pictures are kept" in desk.post(f"jobs/{job}", what="stop_now", back=back)
    [sent] = desk.studio.fleet.submissions
    assert '"stop_now"' in desk.studio.store.get(f"jobs/{job}/{sent.part}/control.json").decode()
    elsewhere = desk.client.post(
        f"/portal/jobs/{job}",
        data={"what": "cancel", "back": "//evil.example"},
        headers=SAME,
        follow_redirects=False,
    )
    assert elsewhere.headers["location"].startswith(f"/portal/jobs/{job}?")
    assert "nothing that can be done" in desk.post(f"jobs/{job}", 422, what="dance")
    mine = desk.job_of("root")
    desk.log_in("ann")
    desk.post(f"jobs/{mine}", 404, what="cancel")
    assert desk.client.get(f"/portal/jobs/{mine}").status_code == 404


def test_health_names_what_is_wrong_and_what_to_do(desk: Desk) -> None:
    desk.studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "no GPU today")
    desk.job_of("ann", sent=0)
    desk.studio.clock.advance(1200)
    shown = desk.get("health")
    assert "Something is wrong." in shown and "no GPU today" in shown
    assert "the oldest for 20 minutes" in shown and "Let an endpoint have more instances" in shown
    assert "Written, read and deleted" in shown and "entries are what was written" in shown
    assert "hypernetwork" in shown and "Contract with workers" in shown
    with desk.studio.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_entries_no_update")
        connection.exec_driver_sql("UPDATE audit_entries SET actor_name = 'eve' WHERE id = 2")
    assert "Entry 2 is not what was written." in desk.get("health")


def test_an_endpoints_page_tells_its_state_kinds_cost_and_last_error(desk: Desk) -> None:
    assert "8 processor threads and a GPU" in desk.get("endpoints")
    made = desk.post("endpoints", name="big", instance_type="large", target="4", price_hour="1.5")
    assert "was created" in made
    spec = desk.services.work.endpoints.get("big").spec
    assert (spec.threads, spec.target, spec.price_hour) == (8, 4, 1.5)
    desk.studio.fleet.statuses["big"] = EndpointStatus(EndpointState.IN_SERVICE, 1, "", 3)
    desk.studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "it fell over")
    desk.services.work.endpoints.observe()
    shown = desk.get("endpoints")
    assert "1 of 3 workers serve" in shown and "it fell over" in shown and "1.50 an hour now" in shown
    free = desk.post("endpoints", name="big", what="changed", instance_type="", threads="2")
    assert "was changed" in free and desk.services.work.endpoints.get("big").spec.options == {}
    assert "no instances of the kind" in desk.post("endpoints", 422, name="x", instance_type="huge")


def test_no_page_has_a_script_style_or_handler_of_its_own(desk: Desk) -> None:
    job = desk.job_of("ann")
    pages = re.findall(r'<a href="/portal/([a-z]+)"', desk.get(""))
    for name in ("", f"jobs/{job}", *pages):
        text = desk.get(name)
        assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:|hx-on", text) == [], (
            name
        )
        assert text.count("<main") == 1 and 'href="#main"' in text


def test_ones_own_job_gets_another_priority_and_a_dead_letter_another_try(desk: Desk) -> None:
    job = desk.job_of("ann")
    assert "nothing to try again" in desk.post(f"jobs/{job}", 422, what="retry")
    desk.post(f"jobs/{job}", 404, what="raise")
    desk.log_in("ann")
    assert "before the owner" in desk.post(f"jobs/{job}", what="raise", back="/portal/mine")
    assert "priority 10" in desk.get("mine")
    desk.post(f"jobs/{job}", what="lower")
    desk.post(f"jobs/{job}", what="lower")
    assert "priority -10" in desk.get("mine")
    [part] = desk.studio.parts(job)
    letter = {"code": "worker_unavailable", "message": "gone", "retryable": True}
    with desk.studio.database.session() as session:
        row = session.get_one(Part, part.id)
        row.state, row.error, row.died = "failed", letter, desk.studio.clock.now()
        session.get_one(Job, job).state = "failed"
    assert "Try again what was given up" in desk.get(f"jobs/{job}")
    assert "in a job of its own" in desk.post(f"jobs/{job}", what="retry")
    assert len(re.findall(r'<td><a href="/portal/jobs/', desk.get("mine"))) == 2
