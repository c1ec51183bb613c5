"""Whose things are, and who sees them: jobs with their pictures, models, styles, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, text

from atelier.contract.errors import Conflict, InvalidRequest, NotFound, NotPermitted, UnknownName
from atelier.contract.jobs import JobState
from atelier.stylefile import PromptStyle
from portal.db.base import Database
from portal.db.migrate import _config, upgrade
from portal.db.rights import Role
from portal.db.styles import Style
from portal.db.work import Job, Model
from portal.domain.sharing import Visibility
from portal.services.callers import Caller
from portal.services.jobs import Shown
from portal.services.model_desk import ModelChange
from portal.services.permissions import ROLES
from portal.services.sharing import Owned, Wish
from portal.services.styles import Scope
from portal.services.trail import Wanted
from tests.integration.test_grids import finish
from tests.jobs_studio import Studio

PRIVATE, STUDIO = Wish(Visibility.PRIVATE), Wish(Visibility.STUDIO)


class House:
    """A studio with ann and bob in the team Films, eve in none, and root, an administrator."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.services = studio, studio.services
        self.ann, self.bob, self.eve = (studio.user(name) for name in ("ann", "bob", "eve"))
        self.root = studio.user("root", "admin")
        self.films = studio.services.teams.create(self.root, "Films", "", ["ann", "bob"]).id
        self.team = Wish(Visibility.TEAM, self.films)

    def job(self, who: Caller, **payload: Any) -> str:
        job = self.studio.submit(who, **payload)
        finish(self.studio, *self.studio.turn())
        return job

    def model(self, name: str, owner: Caller) -> str:
        self.studio.checkpoint(name)
        with self.studio.database.session() as session:
            row = session.scalars(select(Model).where(Model.name == name, Model.owner_id.is_(None))).one()
            row.owner_id, row.visibility = owner.user_id, "private"
        return row.id

    def share(self, who: Caller, owned: Owned, object_id: str, wish: Wish) -> None:
        self.services.sharing.share(who, owned, object_id, wish)

    def listed(self, who: Caller, shown: Shown) -> list[str]:
        return [job.id for job in self.services.work.jobs.listed(who, shown=shown)[0]]

    def sees_job(self, who: Caller, job_id: str) -> bool:
        """Whether job and pictures are there: both or neither."""
        owner_view = self.services.work.jobs.get(self.ann, job_id)
        found = []
        for look in (
            lambda: self.services.work.jobs.get(who, job_id).pictures == owner_view.pictures,
            *(
                lambda each=each: self.services.work.files.describe(who, each.id)
                for each in owner_view.pictures
            ),
        ):
            try:
                found.append(bool(look()))
            except NotFound:
                found.append(False)
        assert len(set(found)) == 1, found
        return found[0]


@pytest.fixture
def house(studio_url: str, tmp_path: Path) -> Iterator[House]:
    studio = Studio(studio_url, tmp_path)
    yield House(studio)
    studio.close()


def test_a_job_is_its_owners_alone_until_it_is_shared_and_again_once_that_is_taken_back(house: House) -> None:
    job = house.job(house.ann, batch_size=2)
    everybody = (house.bob, house.eve, house.root)
    assert [house.sees_job(who, job) for who in (house.bob, house.eve)] == [False, False]
    assert house.services.work.jobs.get(house.root, job).pictures == (), "jobs.read_all shows no pictures"
    for wish, seen in (
        (house.team, [True, False]), (STUDIO, [True, True]), (PRIVATE, [False, False]),
    ):  # fmt: skip
        house.share(house.ann, Owned.JOB, job, wish)
        assert [house.sees_job(who, job) for who in (house.bob, house.eve)] == seen
        for who, sees in zip(everybody, seen, strict=False):
            assert (job in house.listed(who, Shown.SHARED)) == sees
            assert house.listed(who, Shown.MINE) == []
        assert (house.listed(house.bob, Shown.TEAM) == [job]) == (wish is house.team)
        assert (house.listed(house.ann, Shown.TEAM) == [job]) == (wish is house.team)
        assert (house.listed(house.eve, Shown.STUDIO) == [job]) == (wish is STUDIO)
        assert house.listed(house.ann, Shown.SHARED) == [], "one's own is not what others share"
    entries = house.services.trail.entries(Wanted(action="job.share"), limit=9)
    told = [(each.actor_name, each.object, each.details["after"]) for each in entries]
    assert told == [("ann", f"job:{job}", after) for after in ("private", "studio", "team Films")]


def test_a_view_says_whose_a_job_is_and_who_sees_it(house: House) -> None:
    job = house.job(house.ann)
    house.share(house.ann, Owned.JOB, job, house.team)
    view = house.services.work.jobs.get(house.bob, job)
    assert (view.owner, view.visibility, view.team) == ("ann", "team", "Films")
    with pytest.raises(NotPermitted, match="shared with you to look at"):
        house.services.work.actions.act(house.bob, job, "cancel")
    with pytest.raises(NotFound):
        house.services.work.actions.act(house.eve, job, "cancel")


def test_who_leaves_a_team_sees_nothing_of_it_any_more_and_a_team_that_goes_shares_nothing(
    house: House,
) -> None:
    job = house.job(house.ann)
    house.share(house.ann, Owned.JOB, job, house.team)
    assert house.sees_job(house.bob, job)
    house.services.teams.change(house.root, house.films, members=["ann"])
    assert not house.sees_job(house.bob, job), "at once: nothing of it is remembered"
    house.services.teams.change(house.root, house.films, members=["ann", "bob"])
    assert house.sees_job(house.bob, job)
    house.services.teams.delete(house.root, house.films)
    assert not house.sees_job(house.bob, job)
    view = house.services.work.jobs.get(house.ann, job)
    assert (view.visibility, view.team) == ("private", None)


def test_only_the_owner_shares_and_whoever_manages_sharing(house: House) -> None:
    job = house.job(house.ann)
    for who, wish, error, match in (
        (house.eve, STUDIO, NotFound, "no such job"),
        (house.ann, Wish(Visibility.TEAM), InvalidRequest, "no such team"),
        (house.ann, Wish(Visibility.TEAM, "none"), InvalidRequest, "no such team"),
    ):
        with pytest.raises(error, match=match):
            house.share(who, Owned.JOB, job, wish)
    other = house.services.teams.create(house.root, "Games", "", ["eve"]).id
    with pytest.raises(InvalidRequest, match="no such team"):
        house.share(house.ann, Owned.JOB, job, Wish(Visibility.TEAM, other))
    house.share(house.ann, Owned.JOB, job, house.team)
    with pytest.raises(NotPermitted, match="belongs to ann"):
        house.share(house.bob, Owned.JOB, job, STUDIO)
    house.share(house.root, Owned.JOB, job, Wish(Visibility.TEAM, other))
    assert [house.sees_job(who, job) for who in (house.bob, house.eve)] == [False, True]
    [entry] = house.services.trail.entries(Wanted(action="job.share", actor="root"), limit=9)
    assert (entry.subject, entry.details) == ("ann", {"before": "team Films", "after": "team Games"})


# --- Models.


def names(house: House, who: Caller) -> set[str]:
    return {record.model.name for record in house.services.work.desk.records(viewer=who)}


def draws(house: House, who: Caller, name: str) -> bool:
    try:
        house.studio.submit(who, override_settings={"sd_model_checkpoint": name})
    except UnknownName:
        return False
    return True


def test_a_users_own_model_is_there_for_whom_it_is_shared_with_and_for_nobody_else(house: House) -> None:
    model = house.model("annas", house.ann)
    people = (house.ann, house.bob, house.eve)
    for wish, seen in (
        (PRIVATE, [True, False, False]), (house.team, [True, True, False]), (STUDIO, [True, True, True]),
    ):  # fmt: skip
        house.share(house.ann, Owned.MODEL, model, wish)
        assert ["annas" in names(house, who) for who in people] == seen
        assert [draws(house, who, "annas") for who in people] == seen
        published = house.services.work.models.catalogue()
        assert ("annas" in {each.name for each in published.models}) == (wish is STUDIO)
    assert "annas" in names(house, house.root), "who looks after models sees all"
    record = house.services.work.desk.record(model, house.eve)
    assert (record.standing.owner, record.standing.visibility) == ("ann", Visibility.STUDIO)
    house.share(house.ann, Owned.MODEL, model, PRIVATE)
    for look in (house.services.work.desk.record, house.services.work.desk.details):
        with pytest.raises(NotFound):
            look(model, house.eve)


def test_what_is_no_longer_shared_when_its_turn_comes_is_not_drawn(house: House) -> None:
    model = house.model("annas", house.ann)
    house.share(house.ann, Owned.MODEL, model, house.team)
    theirs = {"sd_model_checkpoint": "annas"}
    jobs = [house.studio.submit(who, override_settings=theirs) for who in (house.ann, house.bob)]
    house.share(house.ann, Owned.MODEL, model, PRIVATE)
    assert [sent.job for sent in house.studio.turn()] == jobs[:1]
    refused = house.services.work.jobs.get(house.bob, jobs[1])
    assert refused.state is JobState.FAILED
    assert refused.error is not None and refused.error["code"] == "not_permitted"


def test_the_same_name_is_the_nearest_owners_model(house: House) -> None:
    digests = {}
    for number, owner in enumerate((house.bob, house.ann)):
        model = house.model(f"same{number}", owner)
        with house.studio.database.session() as session:
            row = session.get_one(Model, model)
            row.name, row.filename = "first", "first.safetensors"
        digests[owner.username] = row.sha256
        house.share(owner, Owned.MODEL, model, STUDIO)
    for who, wanted in ((house.ann, digests["ann"]), (house.bob, digests["bob"])):
        job = house.studio.submit(who, override_settings={"sd_model_checkpoint": "first"})
        assert house.studio.parts(job)[0].checkpoint_blob == wanted
    job = house.studio.submit(house.eve, override_settings={"sd_model_checkpoint": "first"})
    assert house.studio.parts(job)[0].checkpoint_blob not in digests.values(), "the studio's own"


def test_an_owner_looks_after_their_own_model_and_no_other(house: House) -> None:
    desk, own = house.services.work.desk, house.model("annas", house.ann)
    keeper = Caller(house.ann.user_id, "ann", ("designer",), ROLES["designer"] | {"models.upload"})
    other = Caller(house.bob.user_id, "bob", ("designer",), ROLES["designer"] | {"models.upload"})
    [studios] = [each.id for each in desk.records(viewer=house.bob)]
    assert desk.change(keeper, own, ModelChange(name="mine")).model.name == "mine"
    with pytest.raises(NotPermitted, match=r"models\.manage"):
        desk.change(keeper, studios, ModelChange(name="stolen"))
    with pytest.raises(NotPermitted, match=r"models\.manage"):
        desk.change(keeper, own, ModelChange(standard=True))
    with pytest.raises(NotFound):
        desk.delete(other, own)
    house.share(house.ann, Owned.MODEL, own, STUDIO)
    with pytest.raises(NotPermitted):
        desk.delete(other, own)
    with pytest.raises(Conflict, match="not the studio's own"):
        desk.change(house.root, own, ModelChange(standard=True))
    with pytest.raises(Conflict, match="standard checkpoint"):
        house.share(house.root, Owned.MODEL, studios, PRIVATE)
    with pytest.raises(NotPermitted, match="belongs to the studio"):
        house.share(house.ann, Owned.MODEL, studios, PRIVATE)
    desk.delete(keeper, own)
    assert "mine" not in names(house, house.root)


def test_the_trail_says_for_whom_anothers_model_was_changed(house: House) -> None:
    desk, own = house.services.work.desk, house.model("annas", house.ann)
    desk.change(house.root, own, ModelChange(name="renamed"))
    keeper = Caller(house.ann.user_id, "ann", ("designer",), ROLES["designer"] | {"models.upload"})
    desk.change(keeper, own, ModelChange(name="mine"))
    desk.delete(house.root, own)
    entries = house.services.trail.entries(Wanted(action="model.", object="model:"), limit=3)
    assert [(each.action, each.object, each.subject) for each in entries] == [
        ("model.delete", "model:mine", "ann"),
        ("model.change", "model:renamed", ""),
        ("model.change", "model:annas", "ann"),
    ]


def test_an_owner_prefers_no_vae_that_they_do_not_see_nor_is_told_of_it(house: House) -> None:
    own, vae = house.model("annas", house.ann), house.model("secret", house.bob)
    with house.studio.database.session() as session:
        session.get_one(Model, vae).kind = "vae"
    keeper = Caller(house.ann.user_id, "ann", ("designer",), ROLES["designer"] | {"models.upload"})
    wish = ModelChange(notes={"vae": "secret"})
    with pytest.raises(UnknownName) as refused:
        house.services.work.desk.change(keeper, own, wish)
    assert "secret.safetensors" not in refused.value.message
    house.share(house.bob, Owned.MODEL, vae, house.team)
    assert house.services.work.desk.change(keeper, own, wish).notes.vae == "secret.safetensors"


# --- Styles.


def test_a_style_is_shared_and_hides_neither_the_studios_nor_ones_own(house: House) -> None:
    styles = house.services.styles
    mine = styles.save(house.ann, Scope.OWN, PromptStyle("soft", "soft light", ""))
    styles.save(house.ann, Scope.OWN, PromptStyle("hard", "hard light", ""))
    assert [each.name for each in styles.listed(house.bob)] == []
    house.share(house.ann, Owned.STYLE, mine.id, house.team)
    [seen] = styles.listed(house.bob)
    assert (seen.name, seen.scope, seen.owner, seen.team) == ("soft", Scope.SHARED, "ann", "Films")
    assert styles.listed(house.eve) == [] and styles.listed(house.eve, Scope.SHARED) == []
    job = house.studio.submit(house.bob, styles=["soft"])
    assert "soft light" in str(house.studio.parts(job)[0].resolved["prompt"])
    styles.save(house.root, Scope.STUDIO, PromptStyle("soft", "the studio's", ""))
    assert [each.prompt for each in styles.listed(house.bob)] == ["the studio's"]
    for change in (
        lambda: styles.delete(house.bob, Scope.SHARED, "soft"),
        lambda: styles.save(house.bob, Scope.SHARED, PromptStyle("soft", "", "")),
    ):
        with pytest.raises(InvalidRequest, match="theirs to change"):
            change()


# --- Leaving.


def test_what_is_handed_over_stays_shared_and_what_is_purged_is_gone_for_all(house: House) -> None:
    job, model = house.job(house.ann), house.model("annas", house.ann)
    kept = house.model("bobs", house.bob)
    with house.studio.database.session() as session:
        session.get_one(Model, kept).name = "annas"
    for owned, each in ((Owned.JOB, job), (Owned.MODEL, model)):
        house.share(house.ann, owned, each, STUDIO)
    house.services.departures.hand_over(house.root, house.ann.user_id, "bob")
    assert house.services.work.jobs.get(house.eve, job).owner == "bob"
    record = house.services.work.desk.record(model, house.eve)
    assert (record.model.name, record.standing.owner) == ("annas (ann)", "bob")
    house.services.departures.schedule(house.root, house.bob.user_id, 0)
    assert house.services.departures.sweep() == 1
    assert house.listed(house.eve, Shown.SHARED) == []
    assert names(house, house.eve) == {"first"} == names(house, house.root)
    with pytest.raises(NotFound):
        house.services.work.jobs.get(house.eve, job)


# --- The queue.


def test_another_users_queue_entries_show_their_place_and_nothing_else(house: House) -> None:
    house.studio.clock.advance(1)
    theirs = [house.studio.submit(house.ann) for _ in range(3)]
    own = house.studio.submit(house.bob)
    jobs = house.services.work.jobs
    places = jobs.queue(house.bob)
    assert (len(places), set(places)) == (4, {None, own})
    assert places.index(own) + 1 == jobs.get(house.bob, own).queue_position == 2
    assert [each for each in jobs.queue(house.ann) if each] == theirs
    assert jobs.queue(house.eve) == [None] * 4
    assert house.listed(house.eve, Shown.SHARED) == [] == house.listed(house.eve, Shown.STUDIO)
    with pytest.raises(NotPermitted):
        house.listed(house.eve, Shown.EVERYBODY)


# --- The tables.


def test_what_was_there_before_is_private_and_models_are_everybodys(database_url: str) -> None:
    database = Database(database_url)
    with database.engine.begin() as connection:
        command.upgrade(_config(connection), "0015")
        for line in (
            "INSERT INTO users (id, username, password_hash, disabled, epoch, settings, created_at) "
            "VALUES ('u', 'ann', '-', false, 0, '{}', 1)",
            "INSERT INTO jobs (id, owner_id, task, state, request, info, version, created) "
            "VALUES ('j', 'u', 't', 'succeeded', '{}', '{}', 1, 1)",
            "INSERT INTO models (id, kind, name, filename, sha256, blob_sha256, size, short_hash, standard, "
            "created, modified, details, notes, folder) VALUES ('m', 'lora', 'a', 'a', 's', 's', 1, 's', "
            "false, 1, 1, '{}', '{}', '')",
            "INSERT INTO styles (id, owner_id, name, prompt, negative_prompt, position, created) VALUES "
            "('s', 'u', 'a', '', '', 0, 1), ('t', NULL, 'a', '', '', 0, 1)",
            "INSERT INTO roles (name, description, permissions, created) "
            "VALUES ('keeper', '', '[\"models.manage\"]', 1)",
        ):
            connection.execute(text(line))
    assert upgrade(database)
    with database.engine.begin() as connection:
        found = {
            table.__tablename__: connection.execute(select(table.visibility).order_by(table.id))
            .scalars()
            .all()
            for table in (Job, Model, Style)
        }
        assert found == {"jobs": ["private"], "models": ["studio"], "styles": ["private", "studio"]}
        command.downgrade(_config(connection), "0015")
    assert upgrade(database)
    with database.reading() as session:
        assert session.get_one(Role, "keeper").permissions == ["models.manage", "models.upload"]
        assert session.get_one(Model, "m").owner_id is None
    database.close()
