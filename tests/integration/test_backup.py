"""A studio as one file and back, while it works."""

from __future__ import annotations

import hashlib
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atelier.contract.errors import Conflict, InvalidRequest, StorageFailed
from atelier.contract.jobs import JobState
from portal.adapters.local import backup
from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.db.work import Picture
from portal.services import audit
from portal.settings import load
from tests.integration.test_cli import atelier
from tests.jobs_studio import Studio


@pytest.fixture
def studio(data_dir: Path) -> Iterator[Studio]:
    made = Studio(f"sqlite:///{data_dir / 'atelier.db'}", data_dir)
    yield made
    made.close()


def finished(studio: Studio, name: str) -> str:
    ann = studio.user(name)
    job = studio.submit(ann, batch_size=2)
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    assert studio.view(ann, job).state is JobState.SUCCEEDED
    return job


def test_a_restored_studio_has_every_picture_its_people_and_a_trail_that_holds(
    studio: Studio, data_dir: Path, tmp_path: Path
) -> None:
    finished(studio, "ann")
    studio.services.identity.create(audit.SYSTEM, "bob", "a long enough password", "designer")
    linked = tmp_path / "model.safetensors"
    linked.write_bytes(b"weights")
    studio.store.link("models/abc", linked)
    archive, place = tmp_path / "studio.tar", tmp_path / "elsewhere" / "data"
    made = backup.back_up(data_dir, archive)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert backup.restore(archive, place) == made
    for private in (place, place / "secrets", *(place / "secrets").iterdir()):
        assert stat.S_IMODE(private.stat().st_mode) & 0o077 == 0, private
    again = build(load(data_dir=place, roles=("api",)))
    with again.database.reading() as session:
        pictures = session.scalars(select(Picture)).all()
    assert len(pictures) == 2
    for picture in pictures:
        assert hashlib.sha256(again.store.get(picture.key)).hexdigest() == picture.sha256
    assert again.store.get("models/abc") == b"weights"
    assert {each.username for each in again.identity.users()} == {"ann", "bob"}
    verified = again.trail.verify()
    assert verified.broken is None and verified.entries > 0
    again.stop()


def test_what_a_backup_names_is_in_it_although_the_studio_goes_on(
    studio: Studio, data_dir: Path, tmp_path: Path
) -> None:
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            finished(studio, f"user{number}")

    finished(studio, "first")
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(3):
            backup.back_up(data_dir, tmp_path / f"{number}.tar")
    finally:
        done.set()
        thread.join(60)
    for number in range(3):
        place = tmp_path / f"restored-{number}"
        backup.restore(tmp_path / f"{number}.tar", place)
        again = build(load(data_dir=place, roles=("api",)))
        with again.database.reading() as session:
            keys = session.scalars(select(Picture.key)).all()
        assert keys and all(again.store.stat(key) for key in keys)
        assert again.trail.verify().broken is None
        again.stop()


def test_a_damaged_backup_leaves_nothing_behind(studio: Studio, data_dir: Path, tmp_path: Path) -> None:
    job = finished(studio, "ann")
    archive, place = tmp_path / "studio.tar", tmp_path / "new"
    backup.back_up(data_dir, archive)
    whole = archive.read_bytes()
    with tarfile.open(archive) as source:
        member = next(each for each in source if job in each.name and each.name.endswith(".png"))
    spoilt = bytearray(whole)
    spoilt[member.offset_data] ^= 1
    for data, error in (
        (bytes(spoilt), StorageFailed),
        (whole[: len(whole) // 2], InvalidRequest),
        (b"no archive", InvalidRequest),
        (b"", InvalidRequest),
    ):
        archive.write_bytes(data)
        with pytest.raises(error):
            backup.restore(archive, place)
        assert not place.exists() and not list(tmp_path.glob(".restore-*"))


def test_an_archive_that_climbs_out_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    (tmp_path / "payload").write_bytes(b"x")
    with tarfile.open(archive, "w") as made:
        made.add(tmp_path / "payload", "../escaped")
    with pytest.raises(InvalidRequest):
        backup.restore(archive, tmp_path / "new")
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "new").exists()


def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(
    studio: Studio, data_dir: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "studio.tar"
    backup.back_up(data_dir, archive)
    with pytest.raises(Conflict, match="already"):
        backup.back_up(data_dir, archive)
    with pytest.raises(Conflict, match="not empty"):
        backup.restore(archive, data_dir)
    with pytest.raises(InvalidRequest, match="no studio"):
        backup.back_up(tmp_path / "nowhere", tmp_path / "other.tar")


def test_by_command_a_studio_is_backed_up_and_restored(data_dir: Path, tmp_path: Path) -> None:
    upgrade(build(load(data_dir=data_dir, roles=("api",))).database)
    words = ("user", "add", "ann", "--role", "designer", "--password-stdin")
    assert atelier(data_dir, *words, stdin="a long enough password\n").returncode == 0
    archive, place = tmp_path / "studio.tar", tmp_path / "back"
    done = atelier(data_dir, "backup", str(archive))
    assert done.returncode == 0 and "secrets" in done.stdout, done.stderr
    assert atelier(data_dir, "backup", str(archive)).returncode == 1
    restored = atelier(data_dir, "restore", str(archive), str(place))
    assert restored.returncode == 0, restored.stderr
    assert "ann\tdesigner\tactive" in atelier(place, "user", "list").stdout
    assert atelier(place, "audit", "verify").returncode == 0
    elsewhere = atelier(data_dir, "backup", str(tmp_path / "x.tar"), ATELIER_STORE_URL=f"file://{tmp_path}/s")
    assert elsewhere.returncode == 1 and "ATELIER_STORE_URL" in elsewhere.stderr
