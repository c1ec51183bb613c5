"""Bring a database up to this version's tables; start the portal on no other."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from portal.db.base import Database

SCRIPTS = "portal.db:migrations"
_LOCK = 0x41_54_45_4C_49_45_52
"""PostgreSQL's advisory lock of our own ("ATELIER"): replicas that start together migrate one after the
other.
"""


def upgrade(database: Database) -> bool:
    """Run what is missing, in one transaction. Returns whether anything was."""
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if _current(connection) == head():
            return False
        command.upgrade(_config(connection), "head")
        return True


def pending(database: Database) -> bool:
    """Whether the database lacks a migration of this version."""
    with database.engine.connect() as connection:
        return _current(connection) != head()


def head() -> str | None:
    """The newest revision there is."""
    return ScriptDirectory.from_config(_config(None)).get_current_head()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
