"""A file from a web address onto this machine's disk: guarded, counted, verified, resumed where it broke."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import httpcore

from atelier.contract.errors import (
    InvalidRequest,
    ModelUnusable,
    PayloadTooLarge,
    StorageFailed,
    StorageFull,
    WorkerUnavailable,
)
from atelier.outbound import Address, Reach, parse
from workers.tasks.connecting import OVER, CheckedNetwork, Patience, Resolve, Watch, certificates, resolve
from workers.tasks.refusals import refusal

REDIRECTS = 5
TRIES = 5
"""How often a file is begun or gone on with where its connection breaks."""
SPARE = 256 * 2**20
"""Bytes that stay free on the disk."""
CHUNK = 2**20
LARGEST_ANSWER = 32 * 2**20
"""Bytes of an answer that is read into memory: a repository's list of files."""
_MOVED = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")
_PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)
_HEAD = 256
"""Bytes by which a web page is known."""
_HEX = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Terms:
    """Under what a file is fetched: `token` for `token_site` alone, at most `limit` bytes, `seconds` from now
    on.
    """

    reach: Reach
    limit: int
    seconds: float
    limited_by: str = "ATELIER_MAX_MODEL_BYTES"
    token: str = field(default="", repr=False)
    token_site: str = ""
    patience: Patience = field(default_factory=Patience)
    resolve: Resolve = resolve


@dataclass
class Answer:
    """The head of an answer, after all redirects; `address` is where it came from."""

    address: Address
    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]
    told: Mapping[str, str]
    """What the first site said of the file while it sent us on: `x-linked-etag` and the like."""

    @property
    def length(self) -> int | None:
        """Bytes to come, where that is said."""
        stated = self.headers.get("content-length", "")
        return int(stated) if stated.isdecimal() else None


@dataclass(frozen=True)
class Fetched:
    """A file that is there. `filename` as the site calls it, "" where it says nothing."""

    path: Path
    size: int
    sha256: str
    filename: str
    verified: bool
    """Whether its sha256 was known and compared."""


Tell = Callable[[int, int | None], None]
"""(bytes that are there, bytes of all of it or None): called with every piece."""


class Fetcher:
    """Fetches under one set of terms; all it does together ends in their time."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._watch = Watch(terms.patience, time.monotonic() + terms.seconds)
        self._network = CheckedNetwork(terms.reach, self._watch, terms.resolve)
        self._trust = certificates()

    @contextmanager
    def opened(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """The answer to a GET, after redirects, each of which is checked as the first address was. Raises
        InvalidRequest, NotPermitted, WorkerUnavailable.
        """
        address, told = parse(url), dict[str, str]()
        for _ in range(REDIRECTS + 1):
            with self._asked(address, headers or {}) as answer:
                if answer.status not in _MOVED:
                    answer.told = told
                    yield answer
                    return
                told = told or dict(answer.headers)
                address = self._next(address, answer.headers.get("location", ""))
        raise InvalidRequest(f"{address.site} sends us on and on: more than {REDIRECTS} redirects.")

    def _next(self, address: Address, location: str) -> Address:
        if not location:
            raise InvalidRequest(f"{address.site} sends us on without saying where.")
        following = parse(urljoin(str(address), location))
        if address.scheme == "https" and following.scheme != "https":
            raise InvalidRequest(f"{address.site} sends us from https to http, which is not followed.")
        return following

    @contextmanager
    def _asked(self, address: Address, headers: Mapping[str, str]) -> Iterator[Answer]:
        self._terms.reach.check_name(address)
        self._network.address = address
        with httpcore.ConnectionPool(self._trust, max_connections=1, network_backend=self._network) as pool:
            self._watch.begin()
            url = httpcore.URL(
                scheme=address.scheme, host=address.host, port=address.port, target=address.target
            )
            sent = [(name.encode(), value.encode()) for name, value in self._headers(address, headers)]
            try:
                with pool.stream("GET", url, headers=sent) as response:
                    self._watch.began()
                    found = {name.decode().lower(): _text(value) for name, value in response.headers}
                    if found.get("content-encoding", "identity").lower() not in ("identity", ""):
                        raise ModelUnusable(
                            f"{address.site} sends the file packed ({found['content-encoding'][:40]}), "
                            "though it was asked not to. What is packed is not unpacked here."
                        )
                    yield Answer(address, response.status, found, response.iter_stream(), {})
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                told = f"The connection to {address.site} failed: {_why(error)}. Try again later."
                raise WorkerUnavailable(OVER if self._watch.over else told) from error

    def _headers(self, address: Address, more: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        yield "Host", address.site
        yield "User-Agent", "Atelier (model import)"
        yield "Accept", "*/*"
        yield "Accept-Encoding", "identity"
        yield "Connection", "close"
        safe = address.scheme == "https" or self._terms.reach.inside(address.host)
        if self._terms.token and safe and address.site == self._terms.token_site:
            yield "Authorization", f"Bearer {self._terms.token}"
        yield from more.items()

    def read(self, url: str) -> tuple[Answer, bytes]:
        """An answer's head and its whole body, whatever its status. Raises PayloadTooLarge."""
        with self.opened(url) as answer:
            body = bytearray()
            for chunk in answer.body:
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise PayloadTooLarge(f"{answer.address.site} answers without an end.")
            return answer, bytes(body)

    def fetch(
        self,
        url: str,
        path: Path,
        tell: Tell,
        *,
        sha256: str = "",
        size: int | None = None,
        repository: str = "",
    ) -> Fetched:
        """The file at `url`, written to the new file `path`. `sha256` and `size` are what it must be, where
        they are known; else what the site itself says. `repository` of the Hub is named where it refuses.
        Raises InvalidRequest for another file than that, ModelUnusable, PayloadTooLarge, StorageFull,
        WorkerUnavailable where it broke off too often.
        """
        if parse(url).scheme == "http" and not sha256 and not self._terms.reach.inside(parse(url).host):
            raise InvalidRequest(
                "Over plain http anybody on the way can change a file. Give its sha256, or an https address."
            )
        partial = _Partial(path, self._terms, sha256, size)
        with path.open("xb") as out:
            for left in reversed(range(TRIES)):
                try:
                    return self._continued(url, out, partial, tell, repository)
                except WorkerUnavailable:
                    if not left or self._watch.over:
                        raise
                    time.sleep(self._terms.patience.pause)
        raise AssertionError("unreachable")

    def _continued(self, url: str, out: BinaryIO, partial: _Partial, tell: Tell, repository: str) -> Fetched:
        with self.opened(url, partial.wanted()) as answer:
            if answer.status not in (200, 206):
                known = bool(self._terms.token)
                raise refusal(answer.address, answer.status, answer.headers, known, repository)
            if partial.goes_on(answer) is False:
                out.seek(0)
                out.truncate()
            tell(partial.count, partial.size)
            for chunk in answer.body:
                partial.take(chunk, answer.address)
                write(out, chunk)
                tell(partial.count, partial.size)
            write(out, b"", flush=True)
            return partial.whole(answer)


class _Partial:
    """A file as far as it has come."""

    def __init__(self, path: Path, terms: Terms, sha256: str, size: int | None) -> None:
        self._path, self._sha256, self._given_size = path, sha256.lower(), size
        self._limit, self._by = terms.limit, terms.limited_by
        self._etag = ""
        self._begin()

    def _begin(self) -> None:
        self.count, self.size, self._digest = 0, self._given_size, hashlib.sha256()
        self._head = b""

    def wanted(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the same one."""
        if not self.count or not self._etag:
            return {}
        return {"Range": f"bytes={self.count}-", "If-Range": self._etag}

    def goes_on(self, answer: Answer) -> bool:
        """Whether the answer brings the rest; if not it is the whole file, from its beginning. Raises
        PayloadTooLarge, StorageFull before a byte of it is read.
        """
        span = _RANGE.match(answer.headers.get("content-range", ""))
        goes_on = answer.status == 206 and span is not None and int(span[1]) == self.count > 0
        if answer.status == 206 and not goes_on:
            raise WorkerUnavailable(f"{answer.address.site} answered with another piece than was asked for.")
        if not goes_on:
            self._begin()
            etag = answer.headers.get("etag", "")
            self._etag = "" if etag.startswith("W/") else etag
            said = answer.length if self.size is None else self.size
            self.size = said
        if self.size is not None and self.size > self._limit:
            raise too_large(self.size, self._limit, self._by)
        # Twice: it is converted, or copied into the store, before it goes here.
        check_room(self._path.parent, 2 * (self.size or 0) - self.count)
        return goes_on

    def take(self, chunk: bytes, address: Address) -> None:
        """Count the next bytes. Raises PayloadTooLarge, ModelUnusable for a web page in place of a file."""
        if len(self._head) < _HEAD:
            self._head += chunk[:_HEAD]
        if self.count < _HEAD and _PAGE.match(self._head):
            raise ModelUnusable(
                f"{address.shown} answers with a web page instead of a model file. It may want a log-in: "
                "give a token, or the address that its download button leads to."
            )
        self._digest.update(chunk)
        self.count += len(chunk)
        if self.count > self._limit:
            raise too_large(self.count, self._limit, self._by)

    def whole(self, answer: Answer) -> Fetched:
        """The file, if it is whole and the right one."""
        if self.size is not None and self.count < self.size:
            raise WorkerUnavailable(
                f"{answer.address.site} broke off after {self.count:,} of {self.size:,} bytes."
            )
        if self.size is not None and self.count > self.size:
            raise InvalidRequest(
                f"{answer.address.site} sent {self.count:,} bytes instead of {self.size:,}: another file."
            )
        digest, said = self._digest.hexdigest(), self._sha256 or _stated(answer)
        if said and digest != said:
            whose = "that was given" if self._sha256 else "that the site states"
            raise InvalidRequest(
                f"The file's sha256 is {digest}, not the one {whose} ({said}). It was changed, or another is "
                "meant; it was thrown away.",
                detail={"sha256": digest, "expected": said},
            )
        return Fetched(self._path, self.count, digest, _called(answer.headers), bool(said))


def too_large(size: int, limit: int, by: str) -> PayloadTooLarge:
    """A file beyond the limit, and what sets that."""
    return PayloadTooLarge(
        f"The file has {size / 2**30:.1f} GiB or more; at most {limit / 2**30:.1f} GiB are taken ({by})."
    )


def check_room(folder: Path, size: int) -> None:
    """Raise StorageFull unless so many bytes more find room on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free - size < SPARE:
        raise StorageFull(
            f"There is no room for the file: {size / 2**30:.1f} GiB are to come, and {free / 2**30:.1f} GiB "
            "are free. Make room and try again."
        )


def write(out: BinaryIO, chunk: bytes, *, flush: bool = False) -> None:
    """Write a piece of a file. Raises StorageFull, StorageFailed."""
    try:
        out.write(chunk)
        if flush:
            out.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full: the file could not be written. Make room.") from error
        raise StorageFailed(f"The file could not be written here: {error.strerror}.") from error


def _stated(answer: Answer) -> str:
    """The sha256 by which the site itself names the file, "" where it does not."""
    for name in ("x-linked-etag", "x-checksum-sha256"):
        said = answer.told.get(name, answer.headers.get(name, "")).strip('"').lower()
        if _HEX.match(said):
            return said
    return ""


def _called(headers: Mapping[str, str]) -> str:
    """The file name in Content-Disposition (RFC 6266), "" where there is none."""
    message = Message()
    message["Content-Disposition"] = headers.get("content-disposition", "")
    return re.split(r"[/\\]", message.get_filename("") or "")[-1]


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _why(error: Exception) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "it fell silent"
    return str(error)[:160].strip(" .") or type(error).__name__
