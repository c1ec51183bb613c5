"""The audit trail holds: the database refuses to change it, and what was changed past the database shows."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from atelier.contract.parts import Action
from portal.db.audit import AuditEntry, AuditHead
from portal.db.base import Database
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.audit import Named, Origin
from portal.services.trail import Trail, Wanted
from tests.jobs_studio import Studio

KEY = b"k" * 32
ANN = Named("a" * 32, "ann", Origin("req-1", "10.0.0.1", "Firefox"))
BOB = Named("b" * 32, "bob", Origin("req-2", "10.0.0.2", "curl"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    upgrade(made)
    audit.keep(made, KEY)
    yield made
    made.close()


def note(database: Database, *actions: str, actor: audit.Actor = ANN, at: float = 1.0) -> None:
    for action in actions:
        with database.session() as session:
            audit.record(session, actor, action, f"thing:{action}", at=at, details={"n": 1.5, "t": "é"})


def behind_its_back(database: Database, *statements: str) -> None:
    """What somebody can do who owns the database: take the triggers off and write."""
    with database.engine.begin() as connection:
        if database.is_sqlite:
            names = connection.execute(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).scalars()
            for name in names.all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("DROP FUNCTION audit_refuse() CASCADE"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount > 0


def test_a_trail_of_several_entries_holds_and_says_its_end(database: Database) -> None:
    note(database, "login", "job.accept", "logout")
    verified = Trail(database, KEY).verify()
    assert (verified.entries, verified.unsealed, verified.count, verified.broken) == (3, 0, 3, None)
    with database.reading() as session:
        hashes = session.scalars(select(AuditEntry.hash).order_by(AuditEntry.id)).all()
    assert verified.hash == hashes[-1] and len(set(hashes)) == 3


def test_an_entry_says_who_did_what_for_whom_on_what_with_which_result_from_where_and_when(
    database: Database,
) -> None:
    with database.session() as session:
        audit.record(session, ANN, "job.cancel", "job:7", "done", subject="bob", at=12.5)
    [entry] = Trail(database, KEY).entries()
    assert (entry.actor_name, entry.actor_id, entry.subject) == ("ann", "a" * 32, "bob")
    assert (entry.action, entry.object, entry.result, entry.at) == ("job.cancel", "job:7", "done", 12.5)
    assert (entry.ip, entry.user_agent, entry.request_id) == ("10.0.0.1", "Firefox", "req-1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor_name = 'nobody'",
        "DELETE FROM audit_entries WHERE id = 1",
        "DELETE FROM audit_entries",
        "UPDATE audit_head SET count = 0, hash = ''",
        "UPDATE audit_head SET hash = 'x'",
        "DELETE FROM audit_head",
    ],
)
def test_the_database_itself_refuses_to_change_or_remove(database: Database, statement: str) -> None:
    note(database, "login", "logout")
    with pytest.raises(DBAPIError, match="can only be added to"), database.engine.begin() as connection:
        connection.execute(text(statement))
    assert Trail(database, KEY).verify().entries == 2


def test_postgresql_refuses_to_truncate(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    for table in ("audit_entries", "audit_head"):
        with pytest.raises(DBAPIError, match="can only be added to"), database.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {table}"))
    database.close()


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (("UPDATE audit_entries SET actor_name = 'bob' WHERE id = 2",), "Entry 2 is not what was written."),
        (("UPDATE audit_entries SET at = 99 WHERE id = 1",), "Entry 1 is not what was written."),
        (("UPDATE audit_entries SET details = '{}' WHERE id = 3",), "Entry 3 is not what was written."),
        (("UPDATE audit_entries SET ip = '' WHERE id = 4",), "Entry 4 is not what was written."),
        (("DELETE FROM audit_entries WHERE id = 2",), "Entry 2 is missing."),
        (("DELETE FROM audit_entries WHERE id = 4",), "The trail ends with entry 3, and its head says 4."),
        (("UPDATE audit_entries SET hash = '' WHERE id = 1",), "Entry 2 is not what was written."),
        (("UPDATE audit_entries SET hash = ''",), "The trail ends with entry 4, and its head says 4."),
        (
            (
                "UPDATE audit_entries SET id = 9 WHERE id = 2",
                "UPDATE audit_entries SET id = 2 WHERE id = 3",
                "UPDATE audit_entries SET id = 3 WHERE id = 9",
            ),
            "Entry 2 is not what was written.",
        ),
    ],
)
def test_what_was_changed_past_the_database_shows(
    database: Database, statements: tuple[str, ...], said: str
) -> None:
    note(database, "login", "job.accept", "job.cancel", "logout")
    behind_its_back(database, *statements)
    assert Trail(database, KEY).verify().broken == said


def test_a_chain_made_with_another_key_does_not_hold(database: Database) -> None:
    note(database, "login")
    assert Trail(database, b"another" * 8).verify().broken == "Entry 1 is not what was written."


def test_an_end_that_was_noted_shows_a_trail_that_was_cut_back(database: Database) -> None:
    trail = Trail(database, KEY)
    note(database, "login", "job.accept")
    short = trail.verify()
    note(database, "logout")
    noted = trail.verify()
    assert trail.verify((noted.count, noted.hash)).broken is None
    assert trail.verify((short.count, short.hash)).broken is None
    behind_its_back(
        database,
        "DELETE FROM audit_entries WHERE id = 3",
        f"UPDATE audit_head SET count = 2, hash = '{short.hash}'",  # noqa: S608  # a hash of ours
    )
    assert trail.verify().broken is None
    assert "entry 3 was noted before" in (trail.verify((noted.count, noted.hash)).broken or "")
    note(database, "something else")
    assert "written anew" in (trail.verify((noted.count, noted.hash)).broken or "")


def test_entries_from_before_the_chain_are_told_and_the_chain_goes_on_from_them(database: Database) -> None:
    behind_its_back(
        database,
        "INSERT INTO audit_entries (id, at, actor_name, subject, action, object, result, request_id, ip, "
        "user_agent, details, hash) VALUES (3, 1, 'ann', '', 'login', '', 'done', '', '', '', '{}', '')",
        "UPDATE audit_head SET count = 3",
    )
    note(database, "logout")
    verified = Trail(database, KEY).verify()
    assert (verified.entries, verified.unsealed, verified.count, verified.broken) == (2, 1, 4, None)


def test_an_entry_is_there_if_and_only_if_its_transaction_is(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.session() as session:
        audit.record(session, ANN, "job.accept", "job:1")
        raise ZeroDivisionError
    note(database, "login")
    trail = Trail(database, KEY)
    assert [entry.action for entry in trail.entries()] == ["login"]
    assert trail.verify().broken is None


def test_a_database_without_a_trail_records_nothing_silently(database: Database) -> None:
    other = Database(database.url)
    with pytest.raises(RuntimeError, match="without a trail"), other.session() as session:
        audit.record(session, ANN, "login", "user:1")
    other.close()


def test_many_at_once_make_one_chain_without_a_gap(database: Database) -> None:
    start = threading.Barrier(6)

    def work(name: str) -> None:
        start.wait(20)
        note(database, *(f"{name}.{number}" for number in range(15)), actor=Named(None, name))

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    verified = Trail(database, KEY).verify()
    assert (verified.entries, verified.count, verified.broken) == (90, 90, None)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(AuditHead)) == 1


def test_entries_are_found_by_everything_they_say(database: Database) -> None:
    note(database, "job.accept", "job.cancel", at=10.0)
    note(database, "model.register", "jobless", actor=BOB, at=20.0)
    with database.session() as session:
        audit.record(session, BOB, "login", "user:1", "refused", subject="100%_ann", at=30.0)
    trail = Trail(database, KEY)

    def found(**wanted: str | float) -> list[str]:
        return [entry.action for entry in trail.entries(Wanted(**wanted))]  # type: ignore[arg-type]

    assert found(action="job.") == ["job.cancel", "job.accept"]
    assert found(actor="bob") == ["login", "jobless", "model.register"]
    assert found(object="thing:model") == ["model.register"]
    assert found(result="refused") == ["login"] == found(subject="100%_ann")
    assert found(action="%") == [] == found(object="_hing")
    assert found(request_id="req-1") == ["job.cancel", "job.accept"]
    assert found(since=20.0, until=30.0) == ["jobless", "model.register"]
    newest = trail.entries(limit=2)
    assert [entry.action for entry in trail.entries(before=newest[-1].id, limit=2)] == [
        "model.register",
        "job.cancel",
    ]


def test_an_export_has_every_entry_in_order_and_nothing_a_spreadsheet_would_compute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.services.trail.CHUNK", 2)
    note(database, "one", "two", "three", "four", "five")
    with database.session() as session:
        audit.record(session, Named(None, '=HYPERLINK("http://x")'), "six", 'a "quoted", object\nof lines')
    trail = Trail(database, KEY)
    rows = list(csv.DictReader("".join(trail.as_csv()).splitlines(keepends=True)))
    assert [row["action"] for row in rows] == ["one", "two", "three", "four", "five", "six"]
    assert rows[-1]["actor_name"] == '\'=HYPERLINK("http://x")'
    assert rows[-1]["object"] == 'a "quoted", object\nof lines'
    assert json.loads(rows[0]["details"]) == {"n": 1.5, "t": "é"}
    objects = [json.loads(line) for line in trail.as_json_lines(Wanted(action="t"))]
    assert [each["action"] for each in objects] == ["two", "three"]
    assert objects[0]["details"] == {"n": 1.5, "t": "é"} and len(objects[0]["hash"]) == 64


def test_text_no_database_keeps_is_made_harmless(database: Database) -> None:
    with database.session() as session:
        audit.record(session, Named(None, "a\0b\ud800" + "x" * 100), "login", "o" * 500)
    trail = Trail(database, KEY)
    [entry] = trail.entries()
    assert entry.actor_name == "a\ufffdb?" + "x" * 60 and len(entry.object) == 160
    assert trail.verify().broken is None


def test_an_administrators_click_on_somebodys_job_says_whose_it_was(
    database_url: str, tmp_path: Path
) -> None:
    studio = Studio(database_url, tmp_path)
    ann, root = studio.user("ann"), studio.user("root", "admin")
    own, others = studio.submit(ann), studio.submit(ann)
    studio.work.actions.act(ann, own, Action.CANCEL)
    studio.work.actions.act(root, others, Action.CANCEL)
    cancelled = studio.services.trail.entries(Wanted(action="job.cancel"))
    assert [(each.actor_name, each.subject) for each in cancelled] == [("root", "ann"), ("ann", "")]
    assert studio.services.trail.verify().broken is None
    studio.close()
