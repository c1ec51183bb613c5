"""ControlNet units in a request (see README.md)."""
