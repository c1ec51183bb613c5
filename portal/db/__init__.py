"""What the portal remembers: SQLAlchemy tables on SQLite or PostgreSQL, and their migrations."""
