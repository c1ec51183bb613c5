"""A blob of a bucket as a stream: read as it comes, taken up again where a connection broke."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Protocol

TRIES = 4
"""Connections that may break without a byte before the reader gives up."""


class Body(Protocol):
    """What an answer of S3 is read from."""

    def readinto(self, buffer: Any, /) -> int:
        """Fill as much of `buffer` as there is; 0 at the end."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class ResumingStream(io.RawIOBase):
    """The bytes of a blob from `start` up to byte `size`. `fetch(at)` opens a body that begins at byte `at`
    and fails where the blob is another one by now; what it raises ends the reading. `gone` makes the error
    for a connection that breaks again and again, with one of `broken`.
    """

    def __init__(
        self,
        size: int,
        body: Body | None,
        fetch: Callable[[int], Body],
        broken: tuple[type[Exception], ...],
        gone: Callable[[BaseException], Exception],
        *,
        start: int = 0,
    ) -> None:
        self._size = size
        self._body = body
        self._fetch = fetch
        self._broken: tuple[type[Exception], ...] = (*broken, EOFError)
        self._gone = gone
        self._at = start

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """Another place is read by another request."""
        return True

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on at another byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        target = max(0, start + offset)
        if target != self._at:
            self._drop()
            self._at = target
        return target

    def readinto(self, buffer: Any, /) -> int:
        """Fill as much of `buffer` as comes; 0 at the end."""
        failed = 0
        while self._at < self._size:
            try:
                if self._body is None:
                    self._body = self._fetch(self._at)
                count = self._body.readinto(buffer)
                if count:
                    self._at += count
                    return count
                raise EOFError(f"the answer ended after {self._at:,} of {self._size:,} bytes")
            except self._broken as error:
                self._drop()
                failed += 1
                if failed >= TRIES:
                    raise self._gone(error) from error
        return 0

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
