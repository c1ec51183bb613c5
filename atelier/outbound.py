"""Which addresses may be fetched from: names and ports by their spelling, machines by what their names lead
to. Nothing here opens a socket: who connects asks `Reach` for every address, and again at every redirect.

The rules follow OWASP's "Server-Side Request Forgery Prevention": public machines over https, whatever the
spelling; never a metadata service.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from atelier.contract.errors import InvalidRequest, NotPermitted

Machine = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS = {"https": 443, "http": 80}
ANY = "*"
"""Every public host."""
LONGEST = 4000
"""Characters of an address; signed ones have a thousand or two."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")
_PLAIN = re.compile(r"[!-~]+\Z")

_NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32",
        "224.0.0.0/4", "255.255.255.255/32", "::/128", "fe80::/10", "ff00::/8", "fd00:ec2::/32",
        "fd20:ce::/32",
    )
)  # fmt: skip
"""Of no machine, of many, or of a cloud's metadata service: not even a deployment can allow these."""
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "240.0.0.0/4", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48",
        "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7",
        "fec0::/10",
    )
)  # fmt: skip
"""IANA's special-purpose registries, and the IPv6 addresses that stand for IPv4 ones."""


@dataclass(frozen=True)
class Address:
    """A web address that is well formed: lower-case `host` (an IPv6 one without brackets) and the request's
    `target`, path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def site(self) -> str:
        """Host, with the port where it is not the scheme's own: what a token is given for."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.scheme] else f"{name}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.site}{self.target}"

    @property
    def shown(self) -> str:
        """The address without its query, which may be signed."""
        return str(self).partition("?")[0]


def parse(url: str) -> Address:
    """The address that `url` spells, in the one way every reader understands. Raises InvalidRequest, saying
    what is odd.
    """
    if len(url) > LONGEST or not _PLAIN.match(url) or "\\" in url:
        raise InvalidRequest(
            f"{url[:80]!r} is no address that is fetched from: it has spaces, characters beyond ASCII, "
            f"backslashes, or more than {LONGEST:,} characters."
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise InvalidRequest(f"{url[:80]!r} is no address: {error}.") from error
    if parts.scheme not in PORTS:
        raise InvalidRequest(f"{url[:80]!r} is no address that is fetched from: give https://host/path.")
    if "@" in parts.netloc:
        raise InvalidRequest(
            "An address with a user or a password in it is not fetched. Give a token instead."
        )
    _check_host(host, bracketed="[" in parts.netloc)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, host, PORTS[parts.scheme] if port is None else port, target)


def _check_host(host: str, *, bracketed: bool) -> None:
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise InvalidRequest(f"{host[:60]!r} is no IPv6 address.") from error
        if "%" in host:
            raise InvalidRequest("An address of one network card alone (with %) is not fetched from.")
        return
    labels = host.split(".")
    if not host or len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        raise InvalidRequest(f"{host[:60]!r} is no host's name.")
    if _NUMBER.match(labels[-1]):  # what inet_aton would read as an address, in whatever spelling
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise InvalidRequest(
                f"{host[:60]!r} is no host: write an IPv4 address as four numbers."
            ) from error


@dataclass(frozen=True)
class Reach:
    """What may be reached: the machines of `hosts` (names, `*.name` for those below one, or `*`), if they are
    public; and machines in `networks`, over http and at any port too.
    """

    hosts: tuple[str, ...] = (ANY,)
    networks: tuple[Network, ...] = ()

    def check_name(self, address: Address) -> None:
        """Raise NotPermitted unless the address' host is one of those named."""
        if self._named(address.host) or self.inside(address.host):
            return
        raise NotPermitted(
            f"{address.host} is no site that models may be fetched from. An administrator can import from "
            "it, or name it in ATELIER_IMPORT_HOSTS.",
            detail={"host": address.host},
        )

    def check_machines(self, address: Address, machines: Sequence[Machine]) -> None:
        """Raise NotPermitted unless all machines that the host's name leads to may be reached in that way.
        What they are is not told: it would be a map of the network.
        """
        private = [self._private(machine) for machine in machines]
        if not machines or not all(private[0] == each for each in private) or None in private:
            raise NotPermitted(
                f"{address.host} leads to a machine that is not public, and such are not fetched from. A "
                "mirror of your own can be allowed with ATELIER_IMPORT_NETWORKS.",
                detail={"host": address.host},
            )
        if private[0]:
            return
        if address.port != PORTS[address.scheme]:
            raise NotPermitted(
                f"Port {address.port} of {address.host} is not fetched from: public sites are asked at their "
                "scheme's own port."
            )

    def inside(self, host: str) -> bool:
        """Whether `host` is an address in one of `networks`."""
        try:
            return self._private(ipaddress.ip_address(host)) is True
        except ValueError:
            return False

    def _named(self, host: str) -> bool:
        return any(
            each == ANY or host == each or (each.startswith("*.") and host.endswith(each[1:]))
            for each in self.hosts
        )

    def _private(self, machine: Machine) -> bool | None:
        """Whether the machine is in one of `networks` (True) or a public one (False); None: neither."""
        if any(machine in network for network in _NEVER):
            return None
        embedded = getattr(machine, "ipv4_mapped", None)
        if embedded is not None and any(embedded in network for network in _NEVER):
            return None
        if any(machine in network for network in self.networks):
            return True
        hidden = any(machine in network for network in _NOT_PUBLIC)
        return None if hidden or not machine.is_global or machine.is_multicast else False
