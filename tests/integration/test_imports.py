"""Imports as people ask for them: rights, states, tokens, quotas and tasks that are lost; both databases."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies
from sqlalchemy import select

from atelier import redaction
from atelier.contract import keys
from atelier.contract.errors import (
    Conflict,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    NotPermitted,
    QuotaExceeded,
)
from atelier.contract.models import ModelKind
from atelier.storage.filesystem import FilesystemBlobStore
from portal.adapters.local.tasks import LocalTasks
from portal.db.audit import AuditEntry
from portal.db.base import new_id
from portal.db.identity import User
from portal.db.imports import ModelImport, SourceToken
from portal.domain.access import SubjectKind
from portal.domain.imports import ImportEvent, ImportState, after
from portal.domain.quotas import Quota
from portal.services import audit
from portal.services.callers import Caller
from portal.services.identity import Change
from portal.services.import_work import LEASE_SECONDS, PAUSE_SECONDS, TRIES
from portal.services.imports import MOST_UNFINISHED, ImportView, ImportWish
from portal.services.model_desk import ModelChange
from portal.services.model_views import Wanted
from portal.services.permissions import ROLES
from portal.services.source_tokens import MOST
from tests.jobs_studio import Studio
from tests.lora_bytes import LORA, OTHER
from tests.sites import Site, head, publish, status
from tests.tasks_here import TasksHere
from tests.waiting import eventually

TOKEN = "hf_a_token_that_nobody_may_see"
DIGEST = hashlib.sha256(LORA).hexdigest()


class Importing(Studio):
    """A studio whose imports are carried out when a test says so: by threads, or by real tasks."""

    def __init__(self, url: str, folder: Path, site: Site, *, real: bool = False) -> None:
        store = FilesystemBlobStore(folder / "store")
        self.tasks = TasksHere(store)
        options = {
            "hub_url": site.url,
            "import_networks": ["127.0.0.0/8"],
            "import_hosts": ["models.example"],
        }
        super().__init__(url, folder, tasks=None if real else self.tasks, **options)
        self.imports, self.importing = self.work.imports, self.work.importing
        self.user("root", "admin")

    def maker(self, name: str) -> Caller:
        """A user who may have models of their own."""
        held = {*ROLES["designer"], "models.upload"}
        self.services.roles.put(audit.SYSTEM, "maker", "", held)
        row = User(id=new_id(), username=name, password_hash="-", created_at=self.clock.now(), settings={})
        row.hold(["maker"])
        with self.database.session() as session:
            session.add(row)
        return Caller(row.id, name, ("maker",), frozenset(held))

    def keeper(self, name: str) -> Caller:
        """A user who looks after models."""
        return self.user(name, "admin")

    def ask(self, actor: audit.Actor, source: str, **wish: Any) -> ImportView:
        """An import that was accepted."""
        return self.imports.ask(actor, ImportWish(source, **{"kind": ModelKind.LORA, **wish}))

    def ended(self, asked: ImportView, *states: ImportState) -> ImportView:
        """The import once it is in one of `states`, or final."""

        def look() -> ImportView | None:
            self.importing.imports()
            view = self.imports.get(audit.SYSTEM, asked.id)
            return view if view.state in states or view.state.final else None

        return eventually(look, within=120, about="the import did not end")  # type: ignore[return-value]

    def begun(self, asked: ImportView) -> None:
        """Wait until the beginning of a Gate's file is there."""

        def look() -> bool:
            self.importing.imports()
            return self.imports.get(audit.SYSTEM, asked.id).done == 20

        eventually(look, about="the import did not begin")

    def imported(self, actor: audit.Actor, source: str, **wish: Any) -> ImportView:
        """An import that was carried out."""
        return self.ended(self.ask(actor, source, **wish))

    def queued_after(self, asked: ImportView, tries: int) -> ImportView | None:
        """The import, if it waits for another try after so many."""
        self.importing.imports()
        view = self.imports.get(audit.SYSTEM, asked.id)
        return view if view.state is ImportState.QUEUED and view.attempt == tries else None

    def loras(self, viewer: Caller | None = None) -> list[str]:
        """The file names of the networks that are there."""
        return [each.model.filename for each in self.work.desk.records(Wanted(ModelKind.LORA), viewer)]

    def left(self) -> list[str]:
        """What of imports still lies in the store."""
        return [each.key for begins in ("tasks/", "imports/") for each in self.store.list(begins)]

    def trail(self) -> list[AuditEntry]:
        """The whole audit trail."""
        with self.database.reading() as session:
            return list(session.scalars(select(AuditEntry).order_by(AuditEntry.id)))


class Gate:
    """A file of which only the beginning comes until it is opened."""

    def __init__(self, data: bytes) -> None:
        self._data, self.opened = data, threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Content-Length": str(len(self._data))})
        handler.wfile.write(self._data[:20])
        self.opened.wait(60)
        handler.wfile.write(self._data[20:])


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Site, Site]]:
    made = Site(), Site()
    yield made
    for each in made:
        each.close()


@pytest.fixture
def hub(served: tuple[Site, Site]) -> Site:
    served[0].asked.clear()
    return served[0]


@pytest.fixture
def web(served: tuple[Site, Site]) -> Site:
    served[1].asked.clear()
    return served[1]


@pytest.fixture
def studio(studio_url: str, tmp_path: Path, hub: Site) -> Iterator[Importing]:
    made = Importing(studio_url, tmp_path / "data", hub)
    yield made
    made.work.tasks.close()
    made.close()


def test_what_was_imported_is_a_model_that_workers_may_name_at_once(studio: Importing, hub: Site) -> None:
    publish(hub, "ink/brushes", {"ink.safetensors": LORA})
    keeper = studio.keeper("kim")
    view = studio.imported(keeper, "hf:ink/brushes", name="Ink", folder="lines/fine")
    assert (view.state, view.model) == (ImportState.SUCCEEDED, f"ink.safetensors [{DIGEST[:10]}]")
    assert (view.done, view.total, view.revision[:6], view.error) == (len(LORA), len(LORA), "c0ffee", None)
    [record] = studio.work.desk.records(Wanted(ModelKind.LORA))
    assert (record.model.sha256, record.model.name, record.folder) == (DIGEST, "Ink", "lines/fine")
    data = LORA[8 + int.from_bytes(LORA[:8], "little") :]
    assert record.model.addnet_hash == hashlib.sha256(data).hexdigest()
    assert studio.store.get(keys.model(DIGEST)) == LORA
    published = json.loads(studio.store.get(keys.catalogue("local")))
    assert "Ink" in [each["name"] for each in published["models"]]
    assert studio.left() == []
    told = {each.action: each for each in studio.trail() if each.actor_name == "kim"}
    assert told["model.import"].details == {
        "sha256": DIGEST, "verified": True, "source": "hf:ink/brushes", "revision": view.revision,
    }  # fmt: skip
    assert told["import.ask"].details["source"] == "hf:ink/brushes" and "model.register" in told


def test_who_may_have_their_own_gets_their_own_from_the_named_hosts_alone(
    studio: Importing, web: Site
) -> None:
    maker = studio.maker("mia")
    url = web.put("/m.safetensors", LORA)
    view = studio.imported(maker, url)
    assert (view.state, view.own) == (ImportState.SUCCEEDED, True)
    [record] = studio.work.desk.records(Wanted(ModelKind.LORA), maker)
    assert (record.standing.owner, record.standing.visibility) == ("mia", "private")
    assert studio.loras(studio.maker("tom")) == []
    for source in ("https://elsewhere.example/m.safetensors", "https://8.8.8.8/m.safetensors"):
        with pytest.raises(NotPermitted, match="ATELIER_IMPORT_HOSTS"):
            studio.ask(maker, source)
        assert studio.ask(studio.keeper(f"k{len(source)}"), source).state is ImportState.QUEUED
    for source in (
        "https://10.0.0.1/m.safetensors",
        "http://169.254.169.254/x",
        "https://[::1]/m",
        "s3://any/key",
    ):
        with pytest.raises(NotPermitted):
            studio.ask(audit.SYSTEM, source)
    with pytest.raises(InvalidRequest, match="Keep the token"):
        studio.ask(audit.SYSTEM, "https://civitai.com/api/download/models/1?type=Model&token=abc")
    for source in ("file:///etc/passwd", "http://2130706433/", "m.safetensors"):
        with pytest.raises(InvalidRequest):
            studio.ask(audit.SYSTEM, source)


def test_wishes_that_cannot_be_are_refused_at_once(studio: Importing, web: Site) -> None:
    keeper = studio.keeper("kim")
    for wish in ({"sha256": "xyz"}, {"folder": "../up"}, {"name": "x" * 201}, {"name": "a\nb"}):
        with pytest.raises(InvalidRequest):
            studio.ask(keeper, "hf:a/b", **wish)
    with pytest.raises(Conflict, match="already named"):
        studio.ask(keeper, "hf:a/b", kind=ModelKind.CHECKPOINT, name="first")
    with pytest.raises(NotFound):
        studio.ask(keeper, "hf:a/b", token="0" * 32)
    for number in range(MOST_UNFINISHED):
        studio.ask(keeper, f"hf:a/b{number}")
    with pytest.raises(LimitExceeded, match="at once"):
        studio.ask(keeper, "hf:one/more")
    with pytest.raises(InvalidRequest):
        studio.imports.ask_all(audit.SYSTEM, [ImportWish("hf:x/y"), ImportWish("nonsense")])
    assert all(each.source != "hf:x/y" for each in studio.imports.listed(keeper)), "all of them or none"


def test_tokens_are_sealed_used_for_their_site_alone_and_shown_to_nobody(
    studio: Importing, hub: Site, web: Site, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, maker, tokens = studio.keeper("kim"), studio.maker("mia"), studio.imports.tokens
    publish(hub, "gated/model", {"m.safetensors": LORA}, token=TOKEN, cdn=web)
    refused = studio.imported(keeper, "hf:gated/model", name="Later")
    assert refused.error and refused.error["detail"]["reason"] == "GatedRepo"
    kept = tokens.keep(keeper, "hub", "", TOKEN, studio=True)
    assert (kept.site, kept.owner, kept.used) == (hub.name, "", None)
    with pytest.raises(Conflict):
        tokens.keep(keeper, "hub", "", TOKEN, studio=True)
    with pytest.raises(NotPermitted):
        tokens.keep(maker, "mine", "", TOKEN, studio=True)
    for bad in (
        {"name": ""},
        {"name": "a\nb"},
        {"token": "short"},
        {"token": "with a space"},
        {"site": "http://u@x/"},
    ):
        with pytest.raises(InvalidRequest):
            tokens.keep(maker, **{"name": "mine", "site": "", "token": TOKEN, **bad})
    view = studio.imported(keeper, "hf:gated/model")
    assert view.state is ImportState.SUCCEEDED and view.id != refused.id
    assert studio.imported(keeper, "hf:gated/model", token="none").state is ImportState.FAILED
    assert studio.imported(maker, "hf:gated/model").state is ImportState.FAILED, (
        "the studio's is not for everybody"
    )
    assert (tokens.listed(maker), [each.used is not None for each in tokens.listed(keeper)]) == ([], [True])
    with pytest.raises(InvalidRequest, match="no other site"):
        studio.ask(keeper, web.put("/m.safetensors", OTHER), token=kept.id)
    for thief in (maker, studio.maker("tom")):
        with pytest.raises(NotFound):
            tokens.delete(thief, kept.id)
        with pytest.raises(NotFound):
            studio.ask(thief, "hf:gated/model", token=kept.id)
    again = studio.ended(studio.imports.retry(keeper, refused.id))
    assert again.state is ImportState.SUCCEEDED, "the token that was kept meanwhile is found"
    own = tokens.keep(maker, "mine", hub.url, TOKEN)
    assert studio.imported(maker, "hf:gated/model").state is ImportState.SUCCEEDED
    waiting = studio.ask(maker, "hf:gated/model", name="again", token=own.id)
    tokens.delete(maker, own.id)
    gone = studio.ended(waiting)
    assert gone.state is ImportState.FAILED and gone.error and "was deleted" in gone.error["message"]
    _nowhere(studio, TOKEN, caplog.text)


def test_only_a_token_that_is_kept_is_struck_out_of_the_logs(studio: Importing) -> None:
    maker, tokens = studio.maker("mia"), studio.imports.tokens
    with pytest.raises(InvalidRequest, match="from 16 to 1,000"):
        tokens.keep(maker, "a", "", "model.import")
    with pytest.raises(InvalidRequest):
        tokens.keep(maker, "b", "", "the studio cannot go on")
    for number in range(MOST):
        tokens.keep(maker, str(number), "", f"hf_kept_for_the_logs_{number:02}")
    with pytest.raises(LimitExceeded):
        tokens.keep(maker, "more", "", "one-word-that-tells-what-happened")
    with pytest.raises(Conflict):
        tokens.keep(maker, "1", "", "another-word-that-tells-what-happened")
    line = "model.import: the studio cannot go on; one-word-that-tells-what-happened another-word-that-tells"
    assert redaction.redacted(line) == line
    assert redaction.redacted("sent hf_kept_for_the_logs_07 away") == "sent *** away"


def test_another_try_is_bound_by_what_its_owner_may_now(studio: Importing, hub: Site) -> None:
    former, mia, tokens = studio.keeper("kim"), studio.maker("mia"), studio.imports.tokens
    publish(hub, "gated/again", {"m.safetensors": LORA}, token=TOKEN)
    kept = tokens.keep(former, "hub", "", TOKEN, studio=True)
    asked = studio.ask(former, "hf:gated/again", own=True, token=kept.id)
    studio.imports.cancel(former, asked.id)
    studio.services.identity.change(audit.SYSTEM, former.user_id, Change(roles=["maker"]))
    view = studio.ended(studio.imports.retry(_with_rights_of(former, mia), asked.id))
    assert view.state is ImportState.FAILED and view.error and view.error["code"] == "not_found"
    assert "may not be used any more" in view.error["message"] and studio.tasks.specs == []
    asked = studio.ask(mia, "hf:a/first")
    studio.imports.cancel(mia, asked.id)
    for number in range(MOST_UNFINISHED):
        studio.ask(mia, f"hf:a/b{number}")
    for actor in (mia, audit.SYSTEM):
        with pytest.raises(LimitExceeded, match="at once"):
            studio.imports.retry(actor, asked.id)
    assert studio.imports.get(mia, asked.id).state is ImportState.CANCELLED
    studio.imports.cancel(mia, studio.imports.listed(mia)[0].id)
    assert studio.imports.retry(mia, asked.id).state is ImportState.QUEUED


def _with_rights_of(user: Caller, other: Caller) -> Caller:
    """A user with the rights of another."""
    return Caller(user.user_id, user.username, other.roles, other.permissions)


def _nowhere(studio: Importing, secret: str, *more: str) -> None:
    """Fail where a secret stands in the database, the trail, the store, a task's order or `more`."""
    with studio.database.reading() as session:
        rows = [*session.scalars(select(SourceToken)), *session.scalars(select(ModelImport))]
        told = [str({each.key: getattr(row, each.key) for each in row.__table__.columns}) for row in rows]
    told += [str((each.object, each.details)) for each in studio.trail()]
    told += [str(spec) for spec in studio.tasks.specs]
    told += [str(view) for view in studio.imports.listed(studio.keeper("eve"))]
    assert secret not in "".join([*told, *more])
    for blob in studio.store.list(""):
        assert secret.encode() not in studio.store.get(blob.key), blob.key


def test_an_import_is_followed_and_cancelled_and_leaves_nothing(studio: Importing, web: Site) -> None:
    gate = Gate(LORA)
    keeper = studio.keeper("kim")
    asked = studio.ask(keeper, web.put("/slow.safetensors", gate))
    studio.begun(asked)
    view = studio.imports.get(keeper, asked.id)
    assert (view.state, view.phase, view.total) == (ImportState.RUNNING, "fetching", len(LORA))
    assert studio.ask(keeper, web.url + "/slow.safetensors").id == asked.id, "the same one is under way"
    assert studio.imports.cancel(keeper, asked.id).state is ImportState.CANCELLED
    assert studio.imports.cancel(keeper, asked.id).state is ImportState.CANCELLED
    studio.importing.imports()
    assert studio.tasks.stopped == ["here-1"] and studio.left() == []
    gate.opened.set()
    again = studio.imports.retry(keeper, asked.id)
    assert (again.state, again.attempt, again.ended) == (ImportState.QUEUED, 0, None)
    assert studio.ended(again).state is ImportState.SUCCEEDED
    with pytest.raises(Conflict):
        studio.imports.retry(keeper, asked.id)
    assert [each.action for each in studio.trail() if each.object == f"import:{asked.id}"] == [
        "import.ask", "import.cancel", "import.retry",
    ]  # fmt: skip


def test_what_is_somebody_elses_is_not_there_and_who_looks_after_models_sees_all(
    studio: Importing, hub: Site
) -> None:
    mia, tom, keeper = studio.maker("mia"), studio.maker("tom"), studio.keeper("kim")
    asked = studio.ask(mia, "hf:a/b")
    for work in (studio.imports.get, studio.imports.cancel, studio.imports.retry):
        with pytest.raises(NotFound):
            work(tom, asked.id)
    assert studio.imports.listed(tom) == []
    assert [each.asker for each in studio.imports.listed(keeper)] == ["mia"]
    assert studio.imports.cancel(keeper, asked.id).state is ImportState.CANCELLED
    assert studio.trail()[-1].subject == "mia"


def test_a_task_that_was_lost_is_begun_anew_by_whoever_leads_next(studio: Importing, web: Site) -> None:
    gate = Gate(LORA)
    asked = studio.ask(audit.SYSTEM, web.put("/m.safetensors", gate))
    studio.importing.imports()
    studio.tasks.lose()
    studio.importing.name = "another process"
    studio.importing._tickets.clear()
    studio.importing.imports()
    assert len(studio.tasks.specs) == 1, "somebody else still has the lease"
    studio.clock.advance(LEASE_SECONDS + 1)
    gate.opened.set()
    view = studio.ended(asked)
    assert (view.state, view.attempt, len(studio.tasks.specs)) == (ImportState.SUCCEEDED, 2, 2)
    assert studio.loras() == ["m.safetensors"]
    assert not any("here-2" in key or key.startswith("imports/") for key in studio.left())


def test_what_another_try_may_mend_is_tried_three_times_and_the_rest_once(
    studio: Importing, web: Site
) -> None:
    asked = studio.ask(audit.SYSTEM, web.put("/m.safetensors", status(500)))
    for number in range(1, TRIES):
        view = eventually(partial(studio.queued_after, asked, number))
        assert view.error and view.error["code"] == "worker_unavailable"
        studio.importing.imports()
        assert studio.imports.get(audit.SYSTEM, asked.id).state is ImportState.QUEUED, "it waits a while"
        studio.clock.advance(PAUSE_SECONDS * number + 1)
    view = studio.ended(asked)
    assert (view.state, view.attempt) == (ImportState.FAILED, TRIES)
    once = studio.imported(audit.SYSTEM, web.put("/no.safetensors", status(404)))
    assert (once.state, once.attempt) == (ImportState.FAILED, 1)
    assert studio.trail()[-1].result == "failed" and studio.left() == []


@pytest.mark.parametrize("change", [Change(disabled=True), Change(roles=["designer"])])
def test_who_may_not_have_it_any_more_does_not_get_it(studio: Importing, web: Site, change: Change) -> None:
    gate, mia = Gate(LORA), studio.maker("mia")
    asked = studio.ask(mia, web.put("/m.safetensors", gate))
    studio.begun(asked)
    studio.services.identity.change(audit.SYSTEM, mia.user_id, change)
    view = studio.ended(asked)
    assert view.state is ImportState.FAILED and view.error and view.error["code"] == "not_permitted"
    gate.opened.set()
    assert studio.loras() == [] and studio.tasks.stopped


def test_a_user_who_is_deleted_takes_imports_and_tokens_along(studio: Importing, web: Site) -> None:
    gate, mia = Gate(LORA), studio.maker("mia")
    studio.imports.tokens.keep(mia, "mine", "", TOKEN)
    studio.begun(studio.ask(mia, web.put("/m.safetensors", gate)))
    studio.services.departures.schedule(studio.keeper("kim"), mia.user_id, 0)
    studio.clock.advance(1)
    studio.services.departures.sweep()
    studio.importing.imports()
    with studio.database.reading() as session:
        assert session.scalars(select(ModelImport)).all() == session.scalars(select(SourceToken)).all() == []
    assert studio.tasks.stopped == ["here-1"] and studio.left() == []
    gate.opened.set()


def test_a_storage_quota_bounds_ones_own_models_and_not_the_studios(studio: Importing, web: Site) -> None:
    mia, url = studio.maker("mia"), web.put("/m.safetensors", LORA)
    quotas = studio.services.quotas
    quotas.put(audit.SYSTEM, SubjectKind.USER, mia.user_id, Quota(storage_bytes=len(LORA) - 1))
    view = studio.imported(mia, url)
    assert view.error and view.error["code"] == "payload_too_large" and "quota" in view.error["message"]
    quotas.put(audit.SYSTEM, SubjectKind.USER, mia.user_id, Quota(storage_bytes=len(LORA)))
    assert studio.imported(mia, url).state is ImportState.SUCCEEDED
    assert quotas.of(mia.user_id).usage.storage_bytes == len(LORA)
    with pytest.raises(QuotaExceeded, match="pictures and models"):
        studio.ask(mia, web.put("/n.safetensors", OTHER))
    assert studio.imported(audit.SYSTEM, web.url + "/n.safetensors").state is ImportState.SUCCEEDED


def test_two_imports_of_one_file_at_once_are_one_model(studio: Importing, web: Site) -> None:
    gate = Gate(LORA)
    asked = [
        studio.ask(actor, web.put(path, gate))
        for actor, path in (
            (studio.keeper("kim"), "/m.safetensors"),
            (studio.keeper("kai"), "/copy/m.safetensors"),
        )
    ]
    eventually(lambda: (studio.importing.imports(), len(web.asked) == 2)[1])
    gate.opened.set()
    views = [studio.ended(each) for each in asked]
    assert [each.state for each in views] == [ImportState.SUCCEEDED] * 2
    assert studio.loras() == ["m.safetensors"] and studio.store.get(keys.model(DIGEST)) == LORA


def test_what_is_no_model_of_its_kind_or_has_a_taken_name_leaves_no_file_behind(
    studio: Importing, web: Site
) -> None:
    wrong = studio.imported(audit.SYSTEM, web.put("/m.safetensors", LORA), kind=ModelKind.CHECKPOINT)
    assert wrong.error and wrong.error["code"] == "model_unusable"
    assert studio.imported(audit.SYSTEM, web.url + "/m.safetensors", name="A").state is ImportState.SUCCEEDED
    waiting = studio.ask(audit.SYSTEM, web.put("/n.safetensors", OTHER), name="B")
    [record] = studio.work.desk.records(Wanted(ModelKind.LORA))
    studio.work.desk.change(audit.SYSTEM, record.id, ModelChange(name="B"))
    view = studio.ended(waiting)
    assert view.error and view.error["code"] == "conflict" and "already named" in view.error["message"]
    assert [each.key for each in studio.store.list("models/")] == [keys.model(DIGEST)]


def test_a_real_task_is_killed_or_cancelled_and_what_remains_is_nothing(
    tmp_path: Path, hub: Site, web: Site
) -> None:
    studio = Importing(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path / "data", hub, real=True)
    tasks = studio.work.tasks
    assert isinstance(tasks, LocalTasks)
    gate = Gate(LORA)
    asked = studio.ask(audit.SYSTEM, web.put("/m.safetensors", gate))
    eventually(lambda: (studio.importing.imports(), web.asked)[1])
    [child] = tasks._children.values()
    child.process.kill()
    view = eventually(partial(studio.queued_after, asked, 1))
    assert view.error and "before it said how it went" in view.error["message"]
    studio.clock.advance(PAUSE_SECONDS + 1)
    eventually(lambda: (studio.importing.imports(), len(web.asked) == 2)[1])
    [child] = tasks._children.values()
    studio.imports.cancel(audit.SYSTEM, asked.id)
    studio.importing.imports()
    assert child.poll() is not None and studio.left() == []
    assert [*(tmp_path / "data" / "tasks").glob("*/*")] == [*(tmp_path / "data" / "tasks").glob("*/lock")]
    gate.opened.set()
    done = studio.ended(studio.imports.retry(audit.SYSTEM, asked.id))
    assert done.state is ImportState.SUCCEEDED and studio.loras() == ["m.safetensors"]
    tasks.close()
    studio.close()


@given(strategies.lists(strategies.sampled_from(ImportEvent), max_size=12))
def test_every_event_in_every_state_is_decided_and_what_succeeded_stays(events: list[ImportEvent]) -> None:
    state = ImportState.QUEUED
    for event in events:
        before, state = state, after(state, event)
        assert isinstance(state, ImportState)
        if before is ImportState.SUCCEEDED:
            assert state is ImportState.SUCCEEDED
        if before.final and state is not before:
            assert event is ImportEvent.RETRY or (before, event) == (
                ImportState.CANCELLED,
                ImportEvent.SUCCEED,
            )
