"""Connections to the machines that were checked, and to no others, with an end to every wait.

A name is resolved once for each connection, all it leads to is checked, and the connection is made to one of
the addresses that were: a name that means something else a moment later (DNS rebinding) changes nothing. No
proxy of the environment is asked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import certifi
import httpcore

from atelier.contract.errors import NotFound, WorkerUnavailable
from atelier.outbound import Address, Machine, Reach

Resolve = Callable[[str, int], Sequence[Machine]]
"""(host, port) -> every machine its name leads to."""
OVER = "The time allowed for an import is over (ATELIER_IMPORT_HOURS)."


@dataclass(frozen=True)
class Patience:
    """Seconds to wait: for a connection, for the beginning of an answer, for any byte of it; and the bytes
    that have to come within `window` seconds, on an average, all the way.
    """

    connect: float = 15.0
    begin: float = 60.0
    silence: float = 60.0
    window: float = 60.0
    window_bytes: int = 64 * 2**10
    pause: float = 2.0
    """Before another try."""


@dataclass
class Watch:
    """The end of all waiting of a fetch: `until` by time.monotonic."""

    patience: Patience
    until: float
    clock: Callable[[], float] = time.monotonic
    _since: float = field(default=0.0)
    _came: int = field(default=0)
    _begin_by: float | None = field(default=None)

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        return self.clock() >= self.until

    def begin(self) -> None:
        """An answer is waited for from now on."""
        self._begin_by = self.clock() + self.patience.begin

    def began(self) -> None:
        """Its head is there: its bytes are counted from now on."""
        self._begin_by, self._since, self._came = None, self.clock(), 0

    def room(self) -> float:
        """Seconds that the next read may take. Raises WorkerUnavailable where there are none left."""
        now = self.clock()
        if self.over:
            raise WorkerUnavailable(OVER)
        end = min(self.until, now + self.patience.silence)
        if self._begin_by is not None:
            if now >= self._begin_by:
                raise WorkerUnavailable("The site did not begin to answer in time.")
            end = min(end, self._begin_by)
        return end - now

    def took(self, count: int) -> None:
        """So many bytes came. Raises WorkerUnavailable where they are too few for their time."""
        if self._begin_by is not None:
            return
        self._came += count
        passed = self.clock() - self._since
        if passed >= self.patience.window:
            if self._came < self.patience.window_bytes:
                raise WorkerUnavailable(
                    f"The site sends next to nothing: {self._came:,} bytes in {passed:.0f} seconds."
                )
            self._since, self._came = self.clock(), 0


def resolve(host: str, port: int) -> list[Machine]:
    """Every machine that the system's resolver knows `host` as; an address is itself. Raises NotFound."""
    with contextlib.suppress(ValueError):
        return [ipaddress.ip_address(host)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotFound(f"There is no host {host}, or its name cannot be looked up now.") from error
    return list(dict.fromkeys(ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found))


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to what `reach` lets through. One address at a time: `address` says which is meant."""

    def __init__(self, reach: Reach, watch: Watch, resolve: Resolve = resolve) -> None:
        self._reach, self._watch, self._resolve = reach, watch, resolve
        self._plain = httpcore.SyncBackend()
        self.address: Address | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to one of the host's machines. Raises NotPermitted, NotFound, httpcore's errors."""
        address = self.address
        if address is None or (address.host, address.port) != (host, port):
            raise RuntimeError("a connection was asked for that nobody checked")
        self._reach.check_name(address)
        machines = self._resolve(host, port)
        self._reach.check_machines(address, machines)
        failure: Exception | None = None
        for machine in machines[:4]:
            seconds = min(self._watch.patience.connect, self._watch.room())
            try:
                stream = self._plain.connect_tcp(str(machine), port, seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self._check_peer(stream, machine)
            return _Watched(stream, self._watch)
        raise httpcore.ConnectError(f"{host} cannot be connected to") from failure

    def _check_peer(self, stream: httpcore.NetworkStream, machine: Machine) -> None:
        """Raise RuntimeError unless the connection is to the machine that was checked."""
        peer = stream.get_extra_info("server_addr")
        if ipaddress.ip_address(str(peer[0]).partition("%")[0]) != machine:
            stream.close()
            raise RuntimeError("a connection went elsewhere than to the address that was checked")


class _Watched(httpcore.NetworkStream):
    """A connection whose every read and write ends in time."""

    def __init__(self, stream: httpcore.NetworkStream, watch: Watch) -> None:
        self._stream, self._watch = stream, watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._watch.room())
        self._watch.took(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._watch.room())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = min(self._watch.patience.connect, self._watch.room())
        return _Watched(self._stream.start_tls(ssl_context, server_hostname, seconds), self._watch)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


@cache
def certificates() -> ssl.SSLContext:
    """TLS as the system trusts it (SSL_CERT_FILE), and by Mozilla's list where an image has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
