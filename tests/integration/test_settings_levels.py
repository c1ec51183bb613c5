"""Settings of the studio, of teams and of users: what holds, what is locked, what was before; on both
databases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from atelier.contract.errors import AtelierError, Conflict, InvalidRequest, NotFound, UnknownName
from atelier.contract.jobs import JobRequest
from portal.db.base import Database
from portal.db.identity import User
from portal.db.migrate import upgrade
from portal.db.preferences import SettingsVersion
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.domain.levels import Level
from portal.services.callers import Caller
from portal.services.ports import EndpointSpec
from portal.services.setting_levels import PLATFORM, Scope, SettingView, of_team, of_user
from portal.services.trail import Wanted
from tests.jobs_studio import PAYLOAD, Studio


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


def holds(studio: Studio, who: Caller, scope: Scope, key: str) -> SettingView:
    found = studio.services.setting_levels.view(who, scope).settings
    return next(each for each in found if each.key == key)


def resolved(studio: Studio, who: Caller, **payload: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """(the engine's settings inside the first part, field -> reason of what was ignored)."""
    job = studio.work.acceptance.accept(who, JobRequest(txt2img_payload={**PAYLOAD, **payload}))
    part = studio.parts(job)[0].resolved
    info = studio.work.jobs.get(who, job).info
    ignored = {each["field"]: each["reason"] for each in info.get("atelier", {}).get("ignored", [])}
    return part["settings"], ignored


def test_levels_take_part_in_what_is_sent_and_the_nearest_counts(studio: Studio) -> None:
    root, ann, bob = studio.user("root", "admin"), studio.user("ann"), studio.user("bob")
    levels = studio.services.setting_levels
    team = studio.services.teams.create(root, "Posters", members=["ann"])
    levels.change(root, PLATFORM, {"CLIP_stop_at_last_layers": 2, "rho": 5.0, "eta_noise_seed_delta": 7})
    levels.change(root, of_team(team.id), {"rho": 6.0, "eta_noise_seed_delta": 8})
    levels.change(ann, of_user(ann.user_id), {"eta_noise_seed_delta": 9})
    anns, _ = resolved(studio, ann)
    bobs, _ = resolved(studio, bob)
    asked, _ = resolved(studio, ann, override_settings={"rho": 1.5})
    keys = ("clip_skip", "rho", "eta_noise_seed_delta")
    assert [anns[key] for key in keys] == [2, 6.0, 9]
    assert [bobs[key] for key in keys] == [2, 5.0, 7]
    assert asked["rho"] == 1.5
    mine = holds(studio, ann, of_user(ann.user_id), "rho")
    assert (mine.value, mine.level, mine.source, mine.own) == (6.0, Level.TEAM, "the team Posters", False)


def test_a_lock_stops_teams_users_and_requests_and_names_itself(studio: Studio) -> None:
    root, ann = studio.user("root", "admin"), studio.user("ann")
    levels = studio.services.setting_levels
    team = studio.services.teams.create(root, "Posters", members=["ann"])
    levels.change(ann, of_user(ann.user_id), {"rho": 3.0})
    levels.change(root, PLATFORM, {"rho": 5.0}, {"rho": True, "sd_model_checkpoint": True})
    sent, ignored = resolved(studio, ann, override_settings={"rho": 4.0}, s_churn=0)
    assert sent["rho"] == 5.0
    assert ignored == {"override_settings.rho": "the option 'rho' is locked by the studio"}
    for scope, who in ((of_team(team.id), root), (of_user(ann.user_id), ann)):
        with pytest.raises(Conflict, match="'rho' is locked by the studio"):
            levels.change(who, scope, {"rho": 4.0, "s_churn": 1.0})
        assert holds(studio, who, scope, "s_churn").value == 0.0, "all or nothing"
    with pytest.raises(Conflict, match="locked by the studio"):
        studio.services.own_settings.change(ann, {"rho": 4.0})
    assert studio.services.own_settings.shown(ann)["rho"] == 5.0
    levels.change(root, PLATFORM, {}, {"rho": False})
    assert resolved(studio, ann)[0]["rho"] == 3.0, "her own value was kept beneath the lock"


def test_a_locked_checkpoint_cannot_be_named_by_a_request(studio: Studio) -> None:
    root, ann = studio.user("root", "admin"), studio.user("ann")
    studio.checkpoint("second")
    studio.services.setting_levels.change(
        root, PLATFORM, {"sd_model_checkpoint": "second"}, {"sd_model_checkpoint": True}
    )
    for request in (
        JobRequest(txt2img_payload=PAYLOAD, model="first"),
        JobRequest(txt2img_payload={**PAYLOAD, "override_settings": {"sd_model_checkpoint": "first"}}),
    ):
        job = studio.work.acceptance.accept(ann, request)
        assert studio.parts(job)[0].resolved["checkpoint"]["name"] == "second"
        (told,) = studio.work.jobs.get(ann, job).info["atelier"]["ignored"]
        assert told["reason"] == "the option 'sd_model_checkpoint' is locked by the studio"


def test_every_change_is_a_version_and_any_can_be_brought_back(studio: Studio) -> None:
    root, levels = studio.user("root", "admin"), studio.services.setting_levels
    levels.change(root, PLATFORM, {"rho": 5.0})
    levels.change(root, PLATFORM, {"rho": 6.0, "tiling": True}, {"tiling": True})
    levels.change(root, PLATFORM, {"rho": 6.0})
    levels.undo(root, PLATFORM, 1)
    levels.undo(root, PLATFORM, 0)
    found = levels.versions(root, PLATFORM)
    assert [(each.number, each.values, each.locked, each.undoes_to) for each in found] == [
        (4, {}, [], 0),
        (3, {"rho": 5.0}, [], 1),
        (2, {"rho": 6.0, "tiling": True}, ["tiling"], None),
        (1, {"rho": 5.0}, [], None),
    ]
    assert found[2].changed == ["rho", "tiling"] and found[2].actor_name == "root"
    with pytest.raises(NotFound, match="no version 9"):
        levels.undo(root, PLATFORM, 9)
    trail = studio.services.trail.entries(Wanted(action="settings."))
    told = [(each.action, each.object, each.details) for each in trail]
    assert told[2] == (
        "settings.change",
        "settings:studio",
        {"options": ["rho", "tiling"], "locked": ["tiling"]},
    )
    assert told[1] == (
        "settings.undo",
        "settings:studio",
        {"options": ["rho", "tiling"], "unlocked": ["tiling"], "version": 1},
    )
    assert studio.services.trail.verify().broken is None


def test_a_users_settings_from_before_versions_become_the_first_one(studio: Studio) -> None:
    ann, levels = studio.user("ann"), studio.services.setting_levels
    with studio.database.session() as session:
        session.get_one(User, ann.user_id).settings = {"rho": 3.0}
    levels.change(ann, of_user(ann.user_id), {"tiling": True})
    levels.undo(ann, of_user(ann.user_id), 1)
    assert holds(studio, ann, of_user(ann.user_id), "rho").value == 3.0
    assert [each.values for each in levels.versions(ann, of_user(ann.user_id))] == [
        {"rho": 3.0},
        {"rho": 3.0, "tiling": True},
        {"rho": 3.0},
    ]


def test_null_gives_the_value_from_below_back(studio: Studio) -> None:
    root, ann, levels = studio.user("root", "admin"), studio.user("ann"), studio.services.setting_levels
    levels.change(root, PLATFORM, {"CLIP_stop_at_last_layers": 2})
    own = of_user(ann.user_id)
    levels.change(ann, own, {"CLIP_stop_at_last_layers": 1})
    assert holds(studio, ann, own, "CLIP_stop_at_last_layers").value == 1, "the default, against the studio"
    levels.change(ann, own, {"CLIP_stop_at_last_layers": None})
    assert holds(studio, ann, own, "CLIP_stop_at_last_layers").level is Level.PLATFORM


def test_what_cannot_be_locked_is_refused(studio: Studio) -> None:
    root, levels = studio.user("root", "admin"), studio.services.setting_levels
    with pytest.raises(UnknownName, match="no option named 'rhoo'"):
        levels.change(root, PLATFORM, {}, {"rhoo": True})
    with pytest.raises(InvalidRequest, match="nobody to lock them for"):
        levels.change(root, of_user(root.user_id), {}, {"rho": True})
    with pytest.raises(NotFound, match="no such team"):
        levels.change(root, of_team("nobody"), {"rho": 1.0})


def test_changes_at_the_same_moment_are_versions_in_a_row_or_refused(studio: Studio) -> None:
    root, levels = studio.user("root", "admin"), studio.services.setting_levels
    together, refused = threading.Barrier(4), []

    def change(number: int) -> None:
        together.wait()
        for step in range(5):
            try:
                levels.change(root, PLATFORM, {"eta_noise_seed_delta": 100 * number + step + 1})
            except AtelierError as error:
                refused.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = levels.versions(root, PLATFORM)
    assert [each.number for each in found] == list(range(len(found), 0, -1))
    assert len(found) + len(refused) == 20
    assert all(isinstance(each, Conflict) for each in refused)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE settings_versions SET actor_name = 'nobody'",
        "UPDATE settings_versions SET number = number + 1",
        "DELETE FROM settings_versions",
        "DELETE FROM settings_versions WHERE subject_kind = 'user'",
        "DELETE FROM settings_versions WHERE subject_kind = 'team'",
        "DELETE FROM settings_versions WHERE subject_kind = 'everybody'",
    ],
)
def test_the_database_itself_refuses_to_change_or_remove_a_version(studio: Studio, statement: str) -> None:
    root, ann, levels = studio.user("root", "admin"), studio.user("ann"), studio.services.setting_levels
    team = studio.services.teams.create(root, "Posters", members=["ann"])
    levels.change(root, PLATFORM, {"rho": 6.0})
    levels.change(root, of_team(team.id), {"rho": 7.0})
    levels.change(ann, of_user(ann.user_id), {"rho": 8.0})
    with (
        pytest.raises(DBAPIError, match="can only be added to"),
        studio.database.engine.begin() as connection,
    ):
        connection.execute(text(statement))
    with studio.database.reading() as session:
        assert session.query(SettingsVersion).count() == 3


def test_postgresql_refuses_to_truncate_the_versions(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    with pytest.raises(DBAPIError, match="can only be added to"), database.engine.begin() as connection:
        connection.execute(text("TRUNCATE settings_versions"))
    database.close()


def test_what_a_deleted_team_and_user_had_set_goes_with_them(studio: Studio) -> None:
    root, ann, levels = studio.user("root", "admin"), studio.user("ann"), studio.services.setting_levels
    team = studio.services.teams.create(root, "Posters", members=["ann"])
    levels.change(root, of_team(team.id), {"rho": 6.0}, {"rho": True})
    levels.change(ann, of_user(ann.user_id), {"tiling": True})
    studio.services.teams.delete(root, team.id)
    assert studio.services.own_settings.shown(ann)["rho"] == 0.0
    studio.services.departures.hand_over(root, ann.user_id, "root")
    with studio.database.reading() as session:
        assert session.query(SettingsVersion).count() == 0


def test_where_a_request_goes_is_a_setting_that_can_be_locked(studio: Studio) -> None:
    root, ann, bob = studio.user("root", "admin"), studio.user("ann"), studio.user("bob")
    levels, key = studio.services.setting_levels, "atelier_endpoint"
    for name in ("big", "small"):
        studio.work.endpoints.create(root, EndpointSpec(name))

    def goes_to(who: Caller, **named: str) -> str | None:
        job = studio.work.acceptance.accept(who, JobRequest(txt2img_payload=PAYLOAD, **named))
        return studio.parts(job)[0].wanted_endpoint

    with pytest.raises(UnknownName, match="no endpoint named 'bgi'"):
        levels.change(ann, of_user(ann.user_id), {key: "bgi"})
    assert goes_to(ann) is None
    levels.change(ann, of_user(ann.user_id), {key: "big"})
    assert [goes_to(ann), goes_to(bob)] == ["big", None]
    assert [goes_to(ann, endpoint="small"), goes_to(ann, endpoint="automatic")] == ["small", None]
    closed = studio.services.access.put(
        root, ObjectKind.ENDPOINT, "big", SubjectKind.USER, ann.user_id, Effect.DENY
    )
    assert goes_to(ann) is None, "what is closed to her is not asked for"
    with pytest.raises(UnknownName):
        levels.change(ann, of_user(ann.user_id), {key: None})
        levels.change(ann, of_user(ann.user_id), {key: "big"})
    studio.services.access.delete(root, closed.id)
    levels.change(root, PLATFORM, {key: "small"}, {key: True})
    assert [goes_to(ann), goes_to(bob, endpoint="big")] == ["small", "small"]
    with pytest.raises(Conflict, match="locked by the studio"):
        levels.change(bob, of_user(bob.user_id), {key: "big"})
