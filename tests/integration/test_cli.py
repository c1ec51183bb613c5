"""The commands, as the real processes a person starts."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from portal import first_start
from portal.services.identity import Identity
from portal.settings import load
from tests.moto_aws import environment, running

ATELIER = str(Path(sys.executable).parent / "atelier")
PASSWORD = "a long enough password"


def atelier(
    data_dir: Path, *words: str, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command on `data_dir` with nothing else of the caller's settings."""
    environment = {"PATH": os.environ["PATH"], "ATELIER_DATA_DIR": str(data_dir), **settings}
    return subprocess.run(
        [ATELIER, *words],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=data_dir,
        check=False,
    )


@pytest.fixture
def migrated(data_dir: Path) -> Path:
    done = atelier(data_dir, "migrate")
    assert done.returncode == 0, done.stderr
    return data_dir


def test_migrate_makes_the_database_and_a_second_run_changes_nothing(migrated: Path) -> None:
    assert (migrated / "atelier.db").is_file()
    assert atelier(migrated, "migrate").returncode == 0


@pytest.mark.long
def test_a_studio_is_prepared_once_with_the_password_it_is_given_and_says_it_nowhere(data_dir: Path) -> None:
    on_aws = {"ATELIER_PLATFORM": "aws", "ATELIER_DEMO_CHECKPOINT": "none.safetensors"}
    refused = atelier(data_dir, "prepare", **on_aws)
    assert refused.returncode == 1
    assert "ATELIER_ADMIN_PASSWORD" in refused.stderr
    nowhere = atelier(data_dir, "prepare", **on_aws, ATELIER_ADMIN_PASSWORD=PASSWORD)
    assert (nowhere.returncode, "Set ATELIER_AWS_REGION" in nowhere.stderr) == (1, True), nowhere.stderr
    with running() as aws:
        on_aws |= environment(aws.url)
        for _ in range(2):
            done = atelier(data_dir, "prepare", **on_aws, ATELIER_ADMIN_PASSWORD=PASSWORD)
            assert done.returncode == 0, done.stderr
            assert "prepared" in done.stdout
            assert PASSWORD not in done.stdout + done.stderr
        kept = aws.client("secretsmanager").list_secrets()["SecretList"]
        assert "atelier/keys/job-key" in {each["Name"] for each in kept}
    listed = atelier(data_dir, "user", "list")
    assert "admin" in listed.stdout
    assert "local" not in atelier(data_dir, "endpoint", "list").stdout, "endpoints on AWS cost by the hour"


def test_two_that_prepare_at_once_make_one_user_and_both_go_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(
        data_dir=tmp_path,
        database_url=database_url,
        admin_password=PASSWORD,
        demo_checkpoint=tmp_path / "none.safetensors",
    )
    first_start.prepare(settings)
    truth, seen = Identity.empty, list[bool]()

    def empty(identity: Identity) -> bool:
        """As the second of two sees it that look before either has made the user."""
        seen.append(truth(identity))
        return True

    monkeypatch.setattr(Identity, "empty", empty)
    assert first_start.prepare(settings).password is None
    assert seen == [False]


def test_a_user_is_added_with_a_password_from_standard_input(migrated: Path) -> None:
    words = ("user", "add", "ann", "--role", "designer", "--password-stdin")
    added = atelier(migrated, *words, stdin=PASSWORD + "\n")
    assert added.returncode == 0, added.stderr
    again = atelier(migrated, *words, stdin=PASSWORD + "\n")
    assert again.returncode != 0
    assert "already" in again.stderr + again.stdout
    assert "Traceback" not in again.stderr


def test_a_users_weight_is_set_within_its_range(migrated: Path) -> None:
    atelier(migrated, "user", "add", "ann", "--password-stdin", stdin=PASSWORD + "\n")
    heavier = atelier(migrated, "user", "weight", "Ann", "2.5")
    assert (heavier.returncode, heavier.stdout) == (0, "ann counts 2.5.\n"), heavier.stderr
    refused = atelier(migrated, "user", "weight", "ann", "0")
    assert refused.returncode == 1 and "from 0.1 to 100" in refused.stderr


def test_a_weak_password_is_refused_with_the_reason(migrated: Path) -> None:
    refused = atelier(
        migrated, "user", "add", "bob", "--role", "designer", "--password-stdin", stdin="short\n"
    )
    assert refused.returncode != 0
    assert "characters" in refused.stderr + refused.stdout


def test_a_checkpoint_is_linked_in_place_and_listed(migrated: Path, checkpoints: list[Path]) -> None:
    done = atelier(migrated, "model", "import", str(checkpoints[0]), "--link")
    assert done.returncode == 0, done.stderr
    assert checkpoints[0].stem in done.stdout
    stored = [path for path in (migrated / "store").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) < checkpoints[0].stat().st_size


def test_a_file_that_is_no_model_is_refused_by_name(migrated: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("these are notes")
    refused = atelier(migrated, "model", "import", str(tmp_path / "notes.safetensors"))
    assert refused.returncode != 0
    assert "notes.safetensors" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_the_extensions_report_runs(data_dir: Path) -> None:
    assert atelier(data_dir, "extensions", "check").returncode == 0


def test_doctor_shows_settings_without_secrets(data_dir: Path) -> None:
    shown = atelier(data_dir, "doctor", ATELIER_ADMIN_PASSWORD="swordfish swordfish")
    assert "ATELIER_DATA_DIR" in shown.stdout
    assert "swordfish" not in shown.stdout + shown.stderr


def test_doctor_says_everything_that_is_wrong_at_once(data_dir: Path) -> None:
    shown = atelier(data_dir, "doctor", ATELIER_PORT="seven", ATELIER_PORTAL_PORT="99999999")
    text = shown.stdout + shown.stderr
    assert shown.returncode != 0
    assert "ATELIER_PORT" in text
    assert "ATELIER_PORTAL_PORT" in text


def test_a_busy_port_is_told_before_anything_starts(data_dir: Path, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = atelier(data_dir, "up", ATELIER_PORT=port, ATELIER_PORTAL_PORT=str(free_port))
    assert refused.returncode != 0
    assert port in refused.stdout + refused.stderr
    assert not (data_dir / "atelier.db").exists()


def test_secrets_are_readable_by_their_owner_alone(migrated: Path) -> None:
    atelier(migrated, "user", "add", "ann", "--role", "admin", "--password-stdin", stdin=PASSWORD + "\n")
    files = [path for path in (migrated / "secrets").rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert stat.S_IMODE((migrated / "secrets").stat().st_mode) == 0o700


def test_an_unknown_command_shows_what_there_is(data_dir: Path) -> None:
    shown = atelier(data_dir, "frobnicate")
    assert shown.returncode == 2
    assert "model" in shown.stderr


def test_a_sweep_says_what_is_nobodys_and_removes_it(data_dir: Path) -> None:
    assert atelier(data_dir, "endpoint", "create", "local").returncode == 0
    blob = data_dir / "store" / "blobs" / "jobs" / "gone" / "part" / "1" / "0.png"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"1")
    assert "jobs: 1" in atelier(data_dir, "sweep", "--dry-run", "--older-than", "0").stdout
    assert blob.exists()
    assert "Removed 1" in atelier(data_dir, "sweep", "--older-than", "0").stdout
    assert not blob.exists()
