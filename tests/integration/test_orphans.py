"""What lies in the store and is nobody's goes once it is old; everything else stays, whatever is going on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from atelier.contract import keys
from atelier.contract.errors import WorkerUnavailable
from atelier.contract.jobs import JobState
from portal.cli.commands import OPERATOR
from portal.db.work import Attempt, Job, Model, Part, Picture
from portal.services import orphans as sweeping
from portal.services.orphans import AGE_SECONDS, PAUSE_SECONDS, Swept
from tests.jobs_studio import Studio
from tests.orphan_report import unaccounted

OLD, YOUNG = 2 * AGE_SECONDS, 60.0


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, slots=8)
    made.turn()  # the store gets its owner's mark
    yield made
    made.close()


def age(studio: Studio, seconds: float) -> None:
    """Let every blob and every unfinished file be so old by the studio's clock."""
    at = studio.clock.now() - seconds
    for path in [*studio.store.root.rglob("*"), *(studio.store.root.parent / "uploads").rglob("*")]:
        os.utime(path, (at, at))


def swept(studio: Studio, *, dry_run: bool = False) -> Swept:
    return studio.work.orphans.sweep(OPERATOR, dry_run=dry_run)


def stored(studio: Studio, prefix: str = "jobs/") -> set[str]:
    return {blob.key for blob in studio.store.list(prefix)}


def sweeps_told(studio: Studio) -> list[dict[str, object]]:
    return [dict(row.details) for row in studio.services.trail.entries() if row.action == "store.sweep"]


def test_what_a_lost_attempt_wrote_late_goes_and_the_visible_one_stays(studio: Studio) -> None:
    ann = studio.user("ann")
    job = studio.submit(ann, batch_size=2)
    [lost] = studio.turn()
    studio.fleet.fail(lost, WorkerUnavailable("gone"))
    studio.turn()
    studio.clock.advance(100)
    [second] = studio.turn()
    studio.fleet.progress(second, 1)
    studio.fleet.succeed(second)
    studio.turn()
    studio.fleet.succeed(lost, tell=False)  # the worker that was given up had gone on all the time
    age(studio, OLD)
    found = swept(studio)
    view = studio.view(ann, job)
    assert view.state is JobState.SUCCEEDED
    prefix = keys.attempt(job, second.part, second.attempt)
    assert stored(studio) == {prefix + name for name in ("0.png", "1.png", "result.json")}
    assert found.found["jobs"] == 3 + 1 + 1  # the late attempt's, the other one's progress, the control
    assert sweeps_told(studio) == [{"jobs": 5, "bytes": found.size}]
    assert unaccounted(studio.database, studio.store) == []


def test_what_is_young_or_at_work_stays(studio: Studio) -> None:
    ann = studio.user("ann")
    job = studio.submit(ann, n_iter=2)
    flying, other = studio.turn()
    studio.fleet.progress(flying, 1)
    studio.fleet.fail(other, WorkerUnavailable("gone"))
    studio.turn()
    studio.fleet.succeed(other, tell=False)
    late = keys.attempt(job, other.part, other.attempt)
    age(studio, YOUNG)
    assert swept(studio).blobs == 0
    age(studio, OLD)
    before = stored(studio)
    assert swept(studio).found == {"jobs": 2}  # the late picture and its result
    assert before - stored(studio) == {late + "0.png", late + "result.json"}


def test_a_look_removes_nothing_and_tells_what_would_go(studio: Studio) -> None:
    studio.store.put("jobs/gone/part/1/0.png", b"12345")
    age(studio, OLD)
    looked = swept(studio, dry_run=True)
    assert (dict(looked.found), looked.size) == ({"jobs": 1}, 5)
    assert stored(studio) == {"jobs/gone/part/1/0.png"}
    assert sweeps_told(studio) == [] and studio.work.orphans.removed == 0
    swept(studio)
    assert stored(studio) == set() and studio.work.orphans.removed == 1


def test_pictures_and_grids_of_deleted_rows_go(studio: Studio) -> None:
    ann = studio.user("ann")
    jobs = [studio.submit(ann, n_iter=2) for _ in range(2)]
    for sent in studio.turn():
        studio.store.put(keys.grid(sent.job, 0), b"grid")
        studio.fleet.succeed(sent)
    studio.turn()
    with studio.database.session() as session:
        for table in (Picture, Attempt, Part):
            session.execute(delete(table).where(table.job_id == jobs[0]))
        session.execute(delete(Job).where(Job.id == jobs[0]))
    studio.view(ann, jobs[1])  # its grid is drawn when somebody looks
    age(studio, OLD)
    swept(studio)
    assert not stored(studio, f"jobs/{jobs[0]}/")
    with studio.database.reading() as session:
        named = set(session.scalars(select(Picture.key)))
    assert named <= stored(studio) and unaccounted(studio.database, studio.store) == []


def test_models_previews_inputs_and_leavings_go_unless_something_names_them(
    studio: Studio, tmp_path: Path
) -> None:
    digest = studio.checkpoint("second")
    with studio.database.session() as session:
        row = session.scalars(select(Model).where(Model.name == "second")).one()
        row.preview_sha256 = "a" * 64
    studio.submit(studio.user("ann"), prompt="after asset-one")
    kept = {
        keys.model(digest), keys.model_preview("a" * 64), keys.asset("asset-one"), keys.catalogue("local"),
    }  # fmt: skip
    nobodys = {
        keys.model("b" * 64), keys.model_preview("c" * 64), keys.asset("asset-two"),
        keys.catalogue("gone"), keys.endpoint_control("gone"), keys.instance("local", "old-1"),
        keys.task_output("run-1"),
    }  # fmt: skip
    for key in kept | nobodys:
        studio.store.put(key, b"1")
    studio.store.put("answers/local/r/0.png", b"a direct caller's")
    linked = tmp_path / "linked.safetensors"
    linked.write_bytes(b"weights")
    studio.store.link(keys.model("d" * 64), linked)
    os.utime(linked, (1, 1))
    for folder in (studio.store.root / "partial", tmp_path / "uploads" / "tmp1"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "half").write_bytes(b"half")
    age(studio, OLD)
    found = swept(studio)
    assert dict(found.found) == {
        "models": 2, "previews": 1, "assets": 1, "catalogue": 1, "control": 1, "endpoints": 1, "tasks": 1,
        "unfinished": 2,
    }  # fmt: skip
    left = stored(studio, "")
    assert kept <= left and not nobodys & left and "answers/local/r/0.png" in left
    assert linked.read_bytes() == b"weights" and keys.model("d" * 64) not in left
    assert not list((studio.store.root / "partial").iterdir())
    assert not list((tmp_path / "uploads").iterdir())


def test_the_leader_sweeps_piece_by_piece_and_rests_between(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 10)
    for _ in range(3):
        studio.turn()  # the walk that the first turn began comes to its end
    studio.clock.advance(PAUSE_SECONDS)
    for number in range(25):
        studio.store.put(f"jobs/gone{number:02d}/part/1/0.png", b"1")
    age(studio, OLD)
    left = []
    for _ in range(8):
        studio.turn()
        left.append(len(stored(studio)))
    assert left[:3] == [15, 5, 0]
    assert sweeps_told(studio) == [{"jobs": 25, "bytes": 25}]
    studio.store.put("jobs/gone99/part/1/0.png", b"1")
    age(studio, OLD)
    studio.turn()
    assert len(stored(studio)) == 1
    studio.clock.advance(PAUSE_SECONDS)
    studio.turn()
    assert not stored(studio)


def test_a_database_that_did_not_make_the_pictures_does_not_judge_them(
    studio: Studio, tmp_path: Path
) -> None:
    studio.store.put("jobs/another/part/1/0.png", b"1")
    age(studio, OLD)
    studio.store.put(keys.owner(), b"another database")
    assert "another database" in swept(studio).refused
    studio.store.delete(keys.owner())
    os.utime(studio.store.root / "blobs" / "jobs/another/part/1/0.png", (1, 1))
    assert "older than this database" in swept(studio).refused
    assert stored(studio) == {"jobs/another/part/1/0.png"}
    assert keys.owner() not in stored(studio, "")
