"""Two portals on one database and one store: both take work, one leads, and the other takes over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from atelier.contract.errors import NotAuthenticated
from atelier.contract.jobs import JobState, JobView
from portal.adapters.local import presence
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.fleet import InMemoryFleet
from portal.bootstrap import build
from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import Attempt, Lease, Part
from portal.services import audit
from portal.services.container import Services
from portal.services.dispatch_loop import LEASE_SECONDS, Leadership
from portal.services.ports import EndpointSpec, EndpointState
from portal.services.sessions import STANDING_CACHE
from portal.services.setting_levels import of_user
from portal.settings import load
from tests.jobs_studio import Studio
from tests.live_portal import PASSWORD, SMALL
from tests.portal_process import Persistent, PortalProcess, prepare, processes_of
from tests.quick_passwords import quick_passwords
from tests.waiting import eventually

FOREVER = "import threading; from portal.adapters.local import presence; "
FOREVER += "print(presence.own_name(), flush=True); threading.Event().wait()"


class Pair:
    """A studio, and another portal on its database, its store and its clock, with workers of its own."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.first = Studio(database_url, folder)
        inbox = QueueInbox()
        self.fleet = InMemoryFleet(self.first.store, inbox)
        self.second: Services = build(
            load(data_dir=folder, database_url=database_url),
            clock=self.first.clock,
            store=self.first.store,
            inbox=inbox,
            fleet=self.fleet,
            passwords=quick_passwords(),
        )

    def start(self) -> None:
        """The first leads, the second is ready to."""
        self.first.work.loop.start()
        eventually(lambda: self.first.work.loop.leading, within=60)
        self.second.work.loop.start()
        eventually(lambda: self.second.work.loop.follows, within=60)

    def close(self) -> None:
        self.first.work.loop.stop()
        self.second.work.loop.stop()
        self.second.database.close()
        self.first.close()


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(database_url, tmp_path)
    yield made
    made.close()


def test_an_endpoint_made_at_a_portal_that_follows_is_the_leaders_and_so_is_its_end(pair: Pair) -> None:
    pair.start()
    view = pair.second.work.endpoints.create(audit.SYSTEM, EndpointSpec("other"))
    assert view.status.state is EndpointState.CREATING and "other" not in pair.fleet.endpoints
    pair.first.clock.advance(3.0)
    pair.first.work.endpoints.observe()
    assert "other" in pair.first.fleet.endpoints
    assert pair.second.work.endpoints.get("other").status.state is EndpointState.IN_SERVICE
    pair.second.work.endpoints.update(audit.SYSTEM, "other", {"slots": 3})
    pair.first.work.endpoints.observe()
    assert pair.first.fleet.endpoints["other"].slots == 3
    pair.second.work.endpoints.delete(audit.SYSTEM, "other")
    assert "other" in pair.first.fleet.endpoints
    pair.first.work.endpoints.observe()
    pair.first.work.endpoints.observe()
    assert "other" not in pair.first.fleet.endpoints
    assert [each.spec.name for each in pair.second.work.endpoints.listed()] == ["local"]


def test_the_one_that_follows_takes_over_and_the_other_lets_go_of_its_workers(pair: Pair) -> None:
    pair.start()
    assert "local" in pair.first.fleet.endpoints and not pair.fleet.endpoints
    with pair.first.database.session() as session:  # what a leader finds that was cut off for long
        row = session.get_one(Lease, "dispatcher")
        row.holder, row.until = pair.second.work.loop.name, pair.first.clock.now() + LEASE_SECONDS
    pair.first.clock.advance(LEASE_SECONDS)
    ann = pair.first.user("ann")
    pair.first.submit(ann)
    eventually(lambda: "local" in pair.fleet.endpoints, within=60)
    eventually(lambda: not pair.first.fleet.endpoints, within=60)
    [sent] = eventually(lambda: list(pair.fleet.submissions), within=60)
    pair.fleet.succeed(sent)
    eventually(lambda: pair.first.view(ann, sent.job).state is JobState.SUCCEEDED, within=60)
    assert not pair.first.fleet.submissions


def test_a_login_that_ends_at_one_portal_ends_at_the_other_within_five_seconds(pair: Pair) -> None:
    user = pair.first.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    with pair.first.database.session() as session:
        row = session.get_one(User, user.id)
        access = pair.first.services.sessions.begin(session, row, audit.NOWHERE).access
    assert pair.second.sessions.caller_of(access).username == "ann"
    with pair.first.database.session() as session:
        pair.first.services.sessions.end_all(session, session.get_one(User, user.id), "test")
    pair.first.clock.advance(STANDING_CACHE)
    with pytest.raises(NotAuthenticated):
        pair.second.sessions.caller_of(access)


def test_a_setting_set_at_one_portal_holds_at_the_other(pair: Pair) -> None:
    ann = pair.first.user("ann")
    pair.first.services.setting_levels.change(ann, of_user(ann.user_id), {"CLIP_stop_at_last_layers": 2})
    assert pair.second.setting_levels.shown(ann.user_id)["CLIP_stop_at_last_layers"] == 2


def test_threads_that_ask_at_the_same_moment_whether_their_process_leads_hear_the_same(
    database_url: str, tmp_path: Path
) -> None:
    studio = Studio(database_url, tmp_path)
    one, together, heard = Leadership(studio.database, studio.clock), threading.Barrier(4), []

    def ask() -> None:
        together.wait()
        heard.append((one.held(), one.elsewhere))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [(True, False)] * 4
    studio.close()


def test_a_leader_that_was_killed_on_this_machine_need_not_be_waited_for(
    database_url: str, tmp_path: Path
) -> None:
    studio = Studio(database_url, tmp_path)
    with subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert Leadership(studio.database, studio.clock, name).held()
        waiting = Leadership(studio.database, studio.clock, presence.own_name(), presence.gone)
        assert not waiting.held() and not presence.gone(name)
        other.kill()
        other.wait(60)
        assert presence.gone(name) and waiting.held()
    elsewhere = f"{'0' * 16}-1-1-1"
    assert not presence.gone(elsewhere) and not presence.gone("an old lease's holder")
    assert presence.own_name() != presence.own_name()
    studio.close()


class Follower(threading.Thread):
    """Reads the events of a job until they end."""

    def __init__(self, url: str, token: str, job: str) -> None:
        super().__init__(daemon=True)
        self._url, self._token = f"{url}/api/v1/jobs/{job}/events", token
        self.states: list[str] = []

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("GET", self._url, headers=headers) as answer,
        ):
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.states.append(JobView.model_validate_json(line[6:]).state)


def dispatched_once(database_url: str) -> int:
    """How many parts there are, each of which had one attempt."""
    database = Database(database_url)
    with database.reading() as session:
        assert {(each.number, each.outcome) for each in session.scalars(select(Attempt))} == {
            (1, "succeeded")
        }
        parts = session.scalar(select(func.count()).select_from(Part)) or 0
    database.close()
    return parts


@pytest.mark.long
def test_two_portals_share_the_work_and_outlast_the_leader(
    postgres_url: str, data_dir: Path, checkpoints: list[Path], free_ports: Any
) -> None:
    prepare(data_dir, checkpoints[0], postgres_url)
    portals = [
        PortalProcess(data_dir, free_ports(), start=False, ATELIER_DATABASE_URL=postgres_url)
        for _ in range(2)
    ]
    for portal in portals:
        portal.launch()
    ann = Persistent([portal.url for portal in portals])
    try:
        for portal in portals:
            eventually(portal.ready, within=180, every=0.1)
        ann.login()
        for number in range(12):
            ann.submit(f"key-{number}", {**SMALL, "seed": number, "n_iter": 1 + number % 2}, at=number % 2)
        followers = [
            Follower(portals[number % 2].url, ann.token, ann.jobs[f"key-{number + 1}"]) for number in range(4)
        ]
        for follower in followers:
            follower.start()
        for job in ann.jobs.values():
            views = [ann.finished(job, at) for at in (0, 1)]
            assert views[0].state is JobState.SUCCEEDED and views[0] == views[1]
        for follower in followers:
            follower.join(60)
            assert follower.states[-1] == "succeeded"
        assert dispatched_once(postgres_url) == 18
        leads = [bool(portal.workers()) for portal in portals]
        assert sorted(leads) == [False, True]
        leader, other = leads.index(True), leads.index(False)
        slow = {**SMALL, "steps": 40, "width": 128, "height": 128}
        for number in range(12, 18):
            ann.submit(f"key-{number}", {**slow, "seed": number}, at=number % 2)
        eventually(lambda: ann.view(ann.jobs["key-12"], other).progress.phase == "steps", within=180)
        portals[leader].kill()
        assert ann.submit("key-13", {**slow, "seed": 13}, at=other) == ann.jobs["key-13"]
        ann.submit("key-18", {**slow, "seed": 18}, at=other)
        for job in ann.jobs.values():
            view = ann.finished(job, other)
            assert view.state is JobState.SUCCEEDED and 1 <= len(view.pictures) <= 2
        assert portals[other].workers()
    finally:
        for portal in portals:
            portal.child.stop(60)
        ann.close()
    eventually(lambda: not processes_of(data_dir), within=90, about="processes were left behind")
