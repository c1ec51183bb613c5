"""One database, SQLite or PostgreSQL, behind `Database`; what every table shares behind `Base`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import JSON, Engine, Float, MetaData, String, create_engine, event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from atelier.contract.errors import StorageFailed

SQLITE_BUSY_MS = 15_000
"""How long a writer waits for another before SQLite gives up, in milliseconds."""

_SILENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's: seconds until a connection attempt and a silent connection are given up; the last in
milliseconds.
"""

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can drop it on both databases."""


class Base(DeclarativeBase):
    """The root of every table of the portal. Times are unix seconds in double precision: no zones to
    confuse.
    """

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {float: Float(53), dict[str, Any]: JSON(), list[str]: JSON()}


ALONE = 0x41746C69
"""The number of PostgreSQL's advisory lock behind `Database.alone`."""
ID = String(32)
"""The column type of our ids: 32 hexadecimal characters."""


def new_id() -> str:
    """A fresh id: 12 hexadecimal characters of milliseconds, so ids sort by age, then 80 random bits."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class Database:
    """Sessions on one database. `session()` writes, `reading()` only reads; both end their transaction on
    leaving.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url)
        self.info: dict[Any, Any] = {}
        """What every writing session carries in its own `info`."""
        self._writing = sessionmaker(self.engine, expire_on_commit=False, info=self.info)
        self._reading = sessionmaker(
            self.engine.execution_options(atelier_reads=True), expire_on_commit=False
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite: one writer at a time, no row locks."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One writing transaction: committed on leaving, rolled back on an exception.

        On SQLite it takes the write lock at its first statement, so it never fails half-way with "database is
        locked".
        """
        with self._writing() as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One reading transaction: a consistent view, and no writer waits for it."""
        with self._reading() as session, session.begin():
            yield session

    def alone(self, session: Session) -> None:
        """Let no other process be in such a transaction until this one ends. SQLite has one writer anyway."""
        if not self.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ALONE})

    def ping(self) -> None:
        """Return if the database answers. Raises StorageFailed."""
        try:
            with self.reading() as session:
                session.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            raise StorageFailed("The database does not answer.", detail={"failed": "database"}) from error

    def close(self) -> None:
        """Give every pooled connection back."""
        self.engine.dispose()


def _server_engine(url: URL) -> Engine:
    """PostgreSQL: a connection that broke meanwhile is replaced, and a server that fell silent is given up
    after some seconds. What the URL says of these itself holds.
    """
    silent = {name: value for name, value in _SILENCE.items() if name not in url.query}
    return create_engine(url, pool_pre_ping=True, connect_args=silent, hide_parameters=True)


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": SQLITE_BUSY_MS / 1000, "check_same_thread": False},
        hide_parameters=True,  # they are people's prompts and hashes, and errors go into logs
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind SQLAlchemy's back
    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        f"busy_timeout={SQLITE_BUSY_MS}",
        "synchronous=NORMAL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("atelier_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
