"""The database's history, one file per change, run by `atelier migrate` and `atelier up`."""
