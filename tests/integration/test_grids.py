"""Grids of finished jobs, on SQLite and on PostgreSQL: drawn once, seen by all who see the job final."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from atelier.contract import keys
from atelier.contract.errors import NotFound, StorageFailed, WorkerUnavailable
from atelier.contract.jobs import JobState, JobView
from atelier.contract.parts import Action
from portal.db.work import Job, Picture
from portal.services.callers import Caller
from portal.services.grids import Grids
from portal.services.ports import Submission
from tests.jobs_studio import Studio

XYZ: dict[str, Any] = {
    "script_name": "x/y/z plot",
    "script_args": {"x_type": "Steps", "x_values": "1-3", "y_type": "CFG Scale", "y_values": "2,4"},
}


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


def finish(studio: Studio, *sent: Submission) -> None:
    """Let workers end parts, and those that find room then, with real pictures, whose red says which seed
    they were made with.
    """
    running = list(sent)
    while running:
        for submission in running:
            studio.fleet.succeed(submission)
            for number, seed in enumerate(submission.body["resolved"]["seeds"]):
                out = io.BytesIO()
                Image.new("RGB", (64, 64), (seed % 256, 0, 0)).save(out, "PNG")
                key = keys.picture(submission.job, submission.part, submission.attempt, number)
                studio.store.put(key, out.getvalue())
        running = studio.turn()


def made(studio: Studio, caller: Caller, **request: Any) -> str:
    """The id of a job whose parts have all succeeded."""
    job_id = studio.submit(caller, **request)
    finish(studio, *studio.turn())
    return job_id


def grids(view: JobView) -> list[Any]:
    return [picture for picture in view.pictures if picture.grid]


def rows(studio: Studio, job_id: str) -> list[Picture]:
    with studio.database.reading() as session:
        query = select(Picture).where(Picture.job_id == job_id, Picture.index < 0).order_by(Picture.index)
        return list(session.scalars(query))


def pixels(studio: Studio, caller: Caller, picture_id: str) -> Image.Image:
    _, key = studio.work.files.describe(caller, picture_id)
    return Image.open(io.BytesIO(studio.store.get(key)))


def test_the_first_to_see_a_final_job_sees_its_grid_in_front(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann, n_iter=4, save_images=True)
    sent = studio.turn()
    assert grids(studio.view(ann, job_id)) == []
    finish(studio, *sent)
    view = studio.view(ann, job_id)
    assert [picture.grid for picture in view.pictures] == [True, False, False, False, False]
    assert (view.pictures[0].width, view.pictures[0].height, view.pictures[0].seed) == (128, 128, 7)
    assert view.info["index_of_first_image"] == 1
    assert view.info["infotexts"] == [picture.infotext for picture in view.pictures]
    assert view.progress.pictures_done == view.progress.pictures == 4
    drawn = pixels(studio, ann, view.pictures[0].id)
    assert [drawn.getpixel(at) for at in ((0, 0), (64, 0), (0, 64), (64, 64))] == [
        (7, 0, 0), (8, 0, 0), (9, 0, 0), (10, 0, 0),
    ]  # fmt: skip


def test_a_list_of_jobs_shows_no_final_job_without_its_grid(studio: Studio) -> None:
    ann = studio.user("ann")
    ids = [made(studio, ann, n_iter=2, save_images=True) for _ in range(3)]
    views, following = studio.work.jobs.listed(ann, limit=2)
    assert [view.id for view in views] == ids[:0:-1]
    assert [len(grids(view)) for view in views] == [1, 1]
    assert following == ids[1]


def test_without_save_images_there_is_no_grid(studio: Studio) -> None:
    ann = studio.user("ann")
    view = studio.view(ann, made(studio, ann, n_iter=2))
    assert grids(view) == []
    assert view.info["index_of_first_image"] == 0


def test_many_who_look_at_once_through_two_portals_make_one_grid(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = made(studio, ann, n_iter=2, save_images=True)
    other = Grids(studio.database, studio.store, studio.clock, studio.work.changes)
    together = threading.Barrier(6)

    def look(ensure: Any) -> None:
        together.wait(60)
        ensure(job_id)

    own = studio.work.jobs._grids
    threads = [threading.Thread(target=look, args=(each.ensure,)) for each in [own, other] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [row.index for row in rows(studio, job_id)] == [-1]
    version = studio.view(ann, job_id).version
    assert studio.view(ann, job_id).version == version


def test_a_plot_is_dispatched_by_cost_and_answered_by_place(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.checkpoint("second")
    arguments = {
        "x_type": "Checkpoint name",
        "x_values": "first,second",
        "y_type": "Steps",
        "y_values": "1,2",
    }
    job_id = studio.submit(ann, script_name="x/y/z plot", script_args=arguments)
    parts = studio.parts(job_id)
    assert [part.resolved["checkpoint"]["name"] for part in parts] == ["first", "first", "second", "second"]
    assert [part.first_index for part in parts] == [0, 2, 1, 3]


def test_the_cells_of_a_plot_are_parts_and_its_pictures_are_kept_but_not_shown(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = made(studio, ann, **XYZ)
    assert len(studio.parts(job_id)) == 6
    view = studio.view(ann, job_id)
    assert [(picture.grid, picture.shown) for picture in view.pictures] == [(True, True)] + [
        (False, False)
    ] * 6
    assert len(studio.work.jobs.shown(view)) == 1
    assert "Script: X/Y/Z plot, X Type: Steps, X Values: 1-3, Y Type: CFG Scale" in view.pictures[0].infotext
    assert studio.work.files.describe(ann, view.pictures[0].id)[0].name == "grid-0000.png"


def test_sub_grids_follow_the_main_one_under_their_own_names(studio: Studio) -> None:
    ann = studio.user("ann")
    arguments = XYZ["script_args"] | {
        "z_type": "Seed", "z_values": "40,50", "include_sub_grids": True, "include_lone_images": True,
        "draw_legend": False,
    }  # fmt: skip
    view = studio.view(ann, made(studio, ann, script_name="x/y/z plot", script_args=arguments))
    assert [(each.width, each.height, each.seed) for each in grids(view)] == [
        (384, 128, 40), (192, 128, 40), (192, 128, 50),
    ]  # fmt: skip
    names = [studio.work.files.describe(ann, each.id)[0].name for each in grids(view)]
    assert names == ["grid-0000.png", "grid-0001.png", "grid-0002.png"]
    assert [each.shown for each in view.pictures] == [True] * 15
    assert view.info["all_seeds"] == [40, 50] + [40] * 6 + [50] * 6


def test_a_stopped_plot_has_a_grid_with_empty_places_and_a_cancelled_one_has_none(studio: Studio) -> None:
    ann = studio.user("ann")
    plot = {**XYZ, "script_args": XYZ["script_args"] | {"draw_legend": False}}
    job_id = studio.submit(ann, **plot)
    first, *others = studio.turn()
    finish(studio, first)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    for submission in others:
        studio.fleet.fail(submission, WorkerUnavailable("gone"))
    studio.turn()
    view = studio.view(ann, job_id)
    assert view.state is JobState.STOPPED
    [grid] = grids(view)
    assert (grid.width, grid.height, grid.complete) == (192, 128, False)
    assert pixels(studio, ann, grid.id).getpixel((100, 0)) == (255, 255, 255)

    cancelled = studio.submit(ann, **plot)
    studio.work.actions.act(ann, cancelled, Action.CANCEL)
    assert studio.view(ann, cancelled).pictures == ()


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_grid_that_cannot_be_drawn_is_told_and_the_pictures_are_shown(studio: Studio, damage: str) -> None:
    ann = studio.user("ann")
    job_id = made(studio, ann, n_iter=2, save_images=True)
    with studio.database.reading() as session:
        [key, _] = session.scalars(select(Picture.key).where(Picture.job_id == job_id)).all()
    if damage == "gone":
        studio.store.delete(key)
    else:
        studio.store.put(key, b"no picture")
    view = studio.view(ann, job_id)
    assert [picture.grid for picture in view.pictures] == [False, False]
    assert "The grid was not drawn." in view.info["atelier"]["warnings"][0]
    assert studio.view(ann, job_id) == view


def test_while_the_store_does_not_answer_nothing_is_decided(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = studio.user("ann")
    job_id = made(studio, ann, n_iter=2, save_images=True)

    def refuse(key: str) -> bytes:
        raise StorageFailed("The store does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(studio.store, "get", refuse)
        with pytest.raises(StorageFailed):
            studio.view(ann, job_id)
    assert len(grids(studio.view(ann, job_id))) == 1


def test_nobody_elses_look_draws_a_grid(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    job_id = made(studio, ann, n_iter=2, save_images=True)
    with pytest.raises(NotFound):
        studio.view(bob, job_id)
    assert rows(studio, job_id) == []
    with studio.database.reading() as session:
        assert session.get_one(Job, job_id).grids_due
