"""How AWS says no."""

from __future__ import annotations


class Refused(Exception):
    """A call that AWS would not carry out: the error's name and its sentence, with an HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
