"""The rules of the portal as pure functions: no database, no clock, no network."""
