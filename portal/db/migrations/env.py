"""What alembic runs: the connection comes from `portal.db.migrate`, the target from every table of the
portal.
"""

from __future__ import annotations

from alembic import context

from portal.db import audit, identity, imports, preferences, rights, styles, work
from portal.db.base import Base

TABLES = (audit, identity, imports, preferences, rights, styles, work)
"""Imported for their tables, which stand in `Base.metadata` from then on."""

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
    compare_type=True,
)
context.run_migrations()
