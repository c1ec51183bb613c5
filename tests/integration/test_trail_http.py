"""The audit trail over HTTP, on its page and by command."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from portal.app import create_app
from tests.integration.test_cli import atelier
from tests.jobs_studio import PASSWORD, Studio, staffed

ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    with staffed(studio_url, tmp_path) as made:
        yield made


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000)) as made:
        yield made


def bearer(client: TestClient, name: str) -> dict[str, str]:
    body = {"username": name, "password": PASSWORD}
    answer = client.post("/api/v1/auth/token", json=body, headers={"User-Agent": "Studio client 7"})
    return {"Authorization": f"Bearer {answer.json()['access_token']}", "User-Agent": "Studio client 7"}


def page(client: TestClient, query: str = "") -> httpx.Response:
    return client.get(f"/portal/audit{query}", headers=bearer(client, "root"))


def test_what_an_administrator_does_says_for_whom_and_from_where(client: TestClient, studio: Studio) -> None:
    root = bearer(client, "root")
    ann = next(each for each in studio.services.identity.users() if each.username == "ann")
    assert client.patch(f"/api/v1/users/{ann.id}", json={"disabled": True}, headers=root).status_code == 200
    spec = {"name": "big", "min_instances": 0}
    assert client.post("/api/v1/endpoints", json=spec, headers=root).status_code == 201
    found = client.get("/api/v1/audit", params={"actor": "root", "limit": 2}, headers=root).json()["entries"]
    assert [each["action"] for each in found] == ["endpoint.create", "user.change"]
    assert found[1]["subject"] == "ann" and found[1]["details"]["disabled"] is True
    for each in found:
        assert (each["ip"], each["user_agent"]) == ("127.0.0.1", "Studio client 7")
        assert re.fullmatch(r"[0-9a-f]{16}", each["request_id"])


def test_the_filters_of_the_api_go_together_and_nonsense_is_refused(client: TestClient) -> None:
    root = bearer(client, "root")

    def found(**query: str) -> list[str]:
        answer = client.get("/api/v1/audit", params=query, headers=root)
        assert answer.status_code == 200, answer.text
        return [each["action"] for each in answer.json()["entries"]]

    assert found(action="user.", actor="system") == ["user.create", "user.create"]
    assert found(action="login", actor="root", result="done") == ["login"]
    assert found(since="1e12") == []
    for query in (
        {"since": "nan"},
        {"until": "-1"},
        {"limit": "0"},
        {"before": str(2**64)},
        {"action": "x" * 65},
    ):
        assert client.get("/api/v1/audit", params=query, headers=root).status_code == 422, query


def test_pages_of_the_trail_follow_each_other(client: TestClient) -> None:
    root, seen, before = bearer(client, "root"), [], ""
    while True:
        answer = client.get(f"/api/v1/audit?limit=2{before}", headers=root).json()
        seen += [each["id"] for each in answer["entries"]]
        if answer["next"] is None:
            break
        before = f"&before={answer['next']}"
    assert seen == list(range(max(seen), 0, -1)) and len(seen) >= 4


def test_an_export_is_a_file_of_what_was_asked_for_and_stands_in_the_trail(client: TestClient) -> None:
    root = bearer(client, "root")
    answer = client.get("/api/v1/audit/export?format=jsonl&action=user.create", headers=root)
    assert answer.headers["content-disposition"] == 'attachment; filename="atelier-audit.jsonl"'
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [each["subject"] for each in lines] == ["root", "ann"]
    table = client.get("/api/v1/audit/export", headers=root)
    assert table.headers["content-type"].startswith("text/csv") and table.text.startswith("id,at,actor_id,")
    exports = client.get("/api/v1/audit?action=audit.export", headers=root).json()["entries"]
    assert [each["details"]["format"] for each in exports] == ["csv", "jsonl"]
    assert client.get("/api/v1/audit/export?format=xml", headers=root).status_code == 422


@pytest.mark.parametrize("path", ["", "/export", "/verify"])
def test_only_who_may_read_the_trail_reads_it(client: TestClient, path: str) -> None:
    assert client.get(f"/api/v1/audit{path}").status_code == 401
    assert client.get(f"/api/v1/audit{path}", headers=bearer(client, "ann")).status_code == 403


def test_a_verification_tells_a_changed_entry(client: TestClient, studio: Studio) -> None:
    root = bearer(client, "root")
    whole = client.get("/api/v1/audit/verify", headers=root).json()
    assert whole["broken"] is None and whole["entries"] == whole["count"] >= 3
    earlier = {"count": whole["count"], "hash": whole["hash"]}
    assert client.get("/api/v1/audit/verify", params=earlier, headers=root).json()["broken"] is None
    assert "The trail holds" in page(client, "?verify=true").text
    database = studio.database
    past_the_trigger = (
        "DROP TRIGGER audit_entries_no_update"
        if database.is_sqlite
        else "SET LOCAL session_replication_role = replica"
    )
    with database.engine.begin() as connection:
        connection.exec_driver_sql(past_the_trigger)
        connection.exec_driver_sql("UPDATE audit_entries SET actor_name = 'ann' WHERE id = 2")
    assert "Entry 2" in client.get("/api/v1/audit/verify", headers=root).json()["broken"]
    assert "Entry 2 is not what was written" in page(client, "?verify=true").text


def test_the_page_filters_keeps_what_was_asked_and_escapes_what_people_typed(client: TestClient) -> None:
    client.post("/api/v1/auth/token", json={"username": "ann", "password": "wrong password"})
    shown = page(
        client, "?action=login&actor=ann&result=refused&first_day=2020-01-01&last_day=2999-12-31"
    ).text
    assert shown.count("<td>login</td>") == 1 and 'value="2020-01-01"' in shown
    assert "first_day=2020-01-01" in shown and "since=1577836800" in shown and "until=32503680000" in shown
    hostile = page(client, "?actor=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&first_day=never").text
    assert "<script>alert" not in hostile and "Nothing here." in hostile


def test_the_trail_is_verified_and_exported_by_command(data_dir: Path) -> None:
    words = ("user", "add", "ann", "--role", "designer", "--password-stdin")
    assert atelier(data_dir, *words, stdin=PASSWORD + "\n").returncode == 0
    verified = atelier(data_dir, "audit", "verify")
    assert verified.returncode == 0, verified.stderr
    end = re.search(r"\d+:[0-9a-f]{64}", verified.stdout)
    assert end and atelier(data_dir, "audit", "verify", "--expect", end[0]).returncode == 0
    assert "COUNT:HASH" in atelier(data_dir, "audit", "verify", "--expect", "7").stderr
    exported = atelier(data_dir, "audit", "export", "-", "--format", "jsonl")
    first, *_, last = [json.loads(line) for line in exported.stdout.splitlines()]
    assert (first["actor_name"], first["action"], last["action"]) == (
        "command line",
        "user.create",
        "audit.export",
    )
    with sqlite3.connect(data_dir / "atelier.db") as connection:
        connection.execute("DROP TRIGGER audit_entries_no_delete")
        connection.execute("DELETE FROM audit_entries WHERE id = 1")
    broken = atelier(data_dir, "audit", "verify", "--expect", end[0])
    assert broken.returncode == 1 and "does not hold" in broken.stderr and "Traceback" not in broken.stderr
