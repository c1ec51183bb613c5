"""No list and no round of the dispatcher reads a whole table of work: the databases' own plans say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from starlette.testclient import TestClient

from atelier.contract.errors import WorkerUnavailable
from portal.app import ROUTERS, create_app
from portal.services import audit
from tests.jobs_studio import Studio

LARGE = ("jobs", "parts", "attempts", "pictures", "audit_entries", "idempotency_keys")
PASSWORD = "a long enough password"
WHOLE = ("/api/v1/audit/export", "/api/v1/audit/verify", "/metrics")
"""What reads a whole table because that is asked for; /metrics counts parts by the index of their states."""
FILTERS = (
    "/api/v1/jobs?state=active",
    "/api/v1/jobs?state=failed",
    "/api/v1/jobs?everybody=true",
    "/api/v1/jobs?everybody=true&state=active",
    "/api/v1/jobs?everybody=true&state=succeeded",
    "/api/v1/dead-letters?everybody=true&code=x&owner=root&endpoint=local&waiting=true",
    "/api/v1/dead-letters?job=x",
    "/api/v1/jobs?shown=shared",
    "/api/v1/jobs?shown=team",
    "/api/v1/jobs?shown=studio",
    "/api/v1/audit?actor=root",
    "/api/v1/audit?subject=ann",
    "/api/v1/audit?request_id=00000001",
    "/api/v1/audit?result=refused",
    "/api/v1/audit?before=7",
)
Told = tuple[str, Any]


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    made.services.identity.create(audit.SYSTEM, "root", PASSWORD, "admin")
    yield made
    made.close()


class Heard:
    """The distinct statements that read a large table, as they were sent."""

    def __init__(self, studio: Studio) -> None:
        self._engine = studio.database.engine
        self.statements: dict[str, Any] = {}

    def __enter__(self) -> dict[str, Any]:
        event.listen(self._engine, "before_cursor_execute", self._hear)
        return self.statements

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._hear)

    def _hear(self, _connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        first = statement.split(maxsplit=1)[0].upper()
        if first in ("SELECT", "UPDATE", "DELETE") and any(f" {name}" in statement for name in LARGE):
            self.statements.setdefault(statement, parameters)


def scans(studio: Studio, heard: dict[str, Any]) -> list[str]:
    """Which of the statements read a large table from its beginning to its end."""
    found = []
    with studio.database.engine.connect() as connection:
        sqlite = studio.database.is_sqlite
        if not sqlite:
            connection.execute(
                text("SET enable_seqscan = off")
            )  # tables of ten rows are read whole with reason
        for statement, parameters in heard.items():
            rows = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' * sqlite}{statement}", parameters)
            plan = [str(row[-1]) for row in rows]
            scanned = _in_sqlite(plan, statement) if sqlite else _in_postgresql(plan)
            if scanned:
                found.append(f"{scanned}: {statement}\n" + "\n".join(plan))
    return found


def _in_sqlite(plan: list[str], statement: str) -> list[str]:
    """A walk in the order of an index or of the primary key that a LIMIT ends is no reading of the whole."""
    walk = "LIMIT" in statement and not any("TEMP B-TREE" in line for line in plan)
    scanned = [line for line in plan if re.match(rf"SCAN ({'|'.join(LARGE)})\b", line)]
    return [] if walk else scanned


def _in_postgresql(plan: list[str]) -> list[str]:
    return [line.strip() for line in plan if re.search(rf"Seq Scan on ({'|'.join(LARGE)})\b", line)]


def test_no_list_reads_a_whole_table(studio: Studio) -> None:
    ann = studio.user("ann")
    job = studio.submit(ann, n_iter=2)
    assert studio.work.loop._leadership.held()
    studio.turn()
    client = TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000")
    login = client.post("/api/v1/auth/token", json={"username": "root", "password": PASSWORD})
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    lists = [
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in route.methods and "{" not in route.path
    ]
    asked = [path for path in lists if path not in WHOLE]
    with Heard(studio) as heard:
        for path in (*asked, *FILTERS, f"/api/v1/jobs?everybody=true&cursor={job}", f"/api/v1/jobs/{job}"):
            assert client.get(path, headers=headers, follow_redirects=False).status_code < 500, path
    assert len(heard) > 20
    assert scans(studio, heard) == []


def test_accepting_dispatching_sweeping_and_ending_read_no_whole_table(studio: Studio) -> None:
    ann = studio.user("ann")
    with Heard(studio) as heard:
        job = studio.submit(ann, n_iter=3)
        for _ in range(2):
            studio.work.loop.turn()
        first, second = studio.fleet.submissions[:2]
        studio.fleet.succeed(first)
        studio.fleet.fail(second, WorkerUnavailable("The worker went away."))
        studio.work.loop.turn()
        studio.clock.advance(3600)
        studio.work.loop.turn()
        studio.services.quotas.of(ann.user_id)
    assert studio.view(ann, job).state
    assert len(heard) > 20
    assert scans(studio, heard) == []


def test_a_statement_without_an_index_is_found(studio: Studio) -> None:
    """The test above can fail: it sees what reads a table whole."""
    statements = (
        "SELECT id FROM parts WHERE recipe_hash = 'x'",
        "SELECT id FROM jobs ORDER BY model LIMIT 3",
    )
    parameters: Any = ()
    assert len(scans(studio, dict.fromkeys(statements, parameters))) == 2
