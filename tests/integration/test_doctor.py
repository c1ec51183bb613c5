"""`atelier doctor` in a studio where things are really wrong."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from atelier.contract import keys
from atelier.contract.models import ModelKind
from portal import cli
from portal.bootstrap import build
from portal.cli import inspection
from portal.db.migrate import upgrade
from portal.db.work import Endpoint
from portal.services import audit
from portal.services.container import Services
from portal.services.models import ModelFile
from portal.services.ports import EndpointSpec
from portal.settings import load
from tests.integration.worker_process import tiny_checkpoint
from tests.quick_passwords import quick_passwords

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny.safetensors", 1)


@pytest.fixture
def services(data_dir: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Services:
    """A studio that is not running, with nothing wrong about it."""
    monkeypatch.setenv("ATELIER_DATA_DIR", str(data_dir))
    built = build(load(roles=("api",)), passwords=quick_passwords())
    upgrade(built.database)
    built.identity.create(audit.SYSTEM, "root", "a long enough password", "admin")
    built.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    with built.database.session() as session:
        session.execute(update(Endpoint).values(state="asleep"))
    built.work.models.register(audit.SYSTEM, ModelFile(model, ModelKind.CHECKPOINT, link=True))
    return built


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*words: str) -> tuple[int, str]:
        status = cli.main(["doctor", *words])
        return status, capsys.readouterr().out

    return run


def test_a_sound_studio_has_nothing_wrong(services: Services, doctor: Doctor) -> None:
    status, said = doctor("--hashes")
    assert (status, said.splitlines()[-1]) == (0, "Nothing is wrong."), said


def test_everything_that_is_wrong_is_said_at_once(
    services: Services,
    doctor: Doctor,
    data_dir: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = tiny_checkpoint(tmp_path / "stored.safetensors", 2)
    kept = services.work.models.register(audit.SYSTEM, ModelFile(stored, ModelKind.CHECKPOINT))
    services.store.delete(keys.model(kept.blob_sha256))
    os.utime(model, (1.0, 1.0))
    with services.database.session() as session:
        session.execute(update(Endpoint).values(state="failed", reason="no such device"))
    place = tmp_path / "extensions" / "sketches"
    place.mkdir(parents=True)
    (place / "extension.toml").write_text("name = 3")
    monkeypatch.setattr(inspection.extension, "INSTALLED", place.parent)
    (data_dir / "secrets" / "old-key").write_text("x")
    (data_dir / "secrets" / "old-key").chmod(0o644)
    monkeypatch.setattr(inspection, "LEAST_FREE_BYTES", 2**60)
    monkeypatch.setattr("portal.cli.doctor.LEAST_FREE_BYTES", 2**60)
    status, said = doctor()
    problems = [line for line in said.splitlines() if line.startswith("- ")]
    assert status == 1 and said.splitlines()[-1] == f"{len(problems)} found."
    for word in (
        "The endpoint local has failed: no such device",
        "stored: its stored file is gone",
        "was changed after it was registered",
        "The extension sketches",
        "chmod 600",
        "GiB are free",
    ):
        assert sum(word in line for line in problems) == 1, (word, said)


def test_a_model_file_that_went_away_or_has_other_bytes_is_named(
    services: Services, doctor: Doctor, model: Path
) -> None:
    content, times = model.read_bytes(), model.stat()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(model, (times.st_atime, times.st_mtime))
    assert doctor()[0] == 0, "of the same size and time: only its bytes tell"
    status, said = doctor("--hashes")
    assert status == 1 and "other bytes than were registered" in said
    model.write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes and had {len(content)}" in doctor()[1]
    model.unlink()
    assert f"its file {model} is gone" in doctor()[1]


def test_entries_taken_from_the_end_of_the_trail_are_missed_since_the_last_look(
    services: Services, doctor: Doctor, data_dir: Path
) -> None:
    assert doctor()[0] == 0
    count, end = (data_dir / "audit.end").read_text().strip().split(":")
    assert int(count) == services.trail.verify().count and len(end) == 64
    services.database.close()
    with sqlite3.connect(data_dir / "atelier.db") as raw:
        for name in ("audit_entries_no_delete", "audit_head_only_grows"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DELETE FROM audit_entries WHERE id = ?", (count,))
        last = raw.execute("SELECT id, hash FROM audit_entries ORDER BY id DESC LIMIT 1").fetchone()
        raw.execute("UPDATE audit_head SET count = ?, hash = ?", last)
    raw.close()
    assert services.trail.verify().broken is None, "by itself the shorter chain holds"
    status, said = doctor()
    assert status == 1 and f"entry {count} was noted before" in said
    assert (data_dir / "audit.end").read_text().startswith(f"{count}:"), "what was noted stays noted"


def test_a_key_that_others_may_read_keeps_the_studio_from_being_looked_at(
    services: Services, doctor: Doctor, data_dir: Path
) -> None:
    (data_dir / "secrets" / "audit-key").chmod(0o644)
    status, said = doctor()
    assert status == 1 and "Others may read" in said and "could not be looked at" in said


def test_a_changed_entry_is_named(services: Services, doctor: Doctor, data_dir: Path) -> None:
    services.database.close()
    with sqlite3.connect(data_dir / "atelier.db") as raw:
        raw.execute("DROP TRIGGER audit_entries_no_update")
        raw.execute("UPDATE audit_entries SET actor_name = 'nobody' WHERE id = 2")
    raw.close()
    status, said = doctor()
    assert status == 1 and "Entry 2 is not what was written." in said
    assert not (data_dir / "audit.end").exists()


def test_settings_that_cannot_be_used_are_all_named_and_the_rest_is_looked_at(
    services: Services, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_PORT", "seven")
    monkeypatch.setenv("ATELIER_LOG_FORMAT", "xml")
    monkeypatch.setitem(cli.doctor.PROGRAMS, "no_such_program", "worker")
    status, said = doctor()
    assert status == 1
    for word in ("ATELIER_PORT", "ATELIER_LOG_FORMAT", "no_such_program is not installed"):
        assert word in said


def test_no_secret_of_the_settings_is_shown(
    services: Services, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_ADMIN_PASSWORD", "swordfish swordfish")
    monkeypatch.setenv("ATELIER_PUBLIC_URL", "https://ann:marlin123@studio.example/")
    said = doctor()[1]
    assert "swordfish" not in said and "marlin123" not in said and "studio.example" in said
    assert json.dumps(said)
