"""How a request came in: through which proxy, under which name, from where. Forwarded headers count from
trusted proxies alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from atelier import logs
from portal.services.audit import Origin
from portal.settings import Settings

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
"""A name or an address, and a port: no path, nobody's name, no query. Links are made with it."""
_LOOPBACK_NAME = "localhost"


@dataclass(frozen=True)
class Arrival:
    """The request as its sender sees it. `host` may carry a port; `scheme` is http or https."""

    request_id: str
    scheme: str
    host: str
    client_ip: str
    user_agent: str

    @property
    def site(self) -> str:
        """Scheme, host and port, as a browser's Origin header says it."""
        return f"{self.scheme}://{self.host}".lower()

    @property
    def hostname(self) -> str:
        """The host without its port, lower case; empty where it is no host, or more than one."""
        if not _HOST.match(self.host):
            return ""
        try:
            return urlsplit(f"//{self.host}").hostname or ""
        except ValueError:
            return ""

    @property
    def secure(self) -> bool:
        """Whether the sender's connection is encrypted."""
        return self.scheme == "https"

    @property
    def loopback(self) -> bool:
        """Whether the sender addressed this very machine."""
        address = _address(self.hostname)
        return address.is_loopback if address else self.hostname == _LOOPBACK_NAME

    @property
    def origin(self) -> Origin:
        """What the audit trail keeps of it."""
        return Origin(self.request_id, self.client_ip, self.user_agent)


def arrival_of(scope: Scope, settings: Settings) -> Arrival:
    """Read the arrival off an ASGI scope."""
    headers = Headers(scope=scope)
    peer = (scope.get("client") or ("",))[0]
    proxied = _trusted(peer, settings.trusted_proxies)
    forwarded = headers if proxied else Headers()
    scheme = forwarded.get("x-forwarded-proto", scope.get("scheme", "http")).split(",")[-1].strip().lower()
    # CloudFront sends people to https and speaks http to the load balancer, which tells of that hop alone.
    edge = proxied and settings.edge == "cloudfront"
    return Arrival(
        request_id=logs.request_id(forwarded.get("x-request-id")),
        scheme="https" if edge or scheme == "https" else "http",
        host=forwarded.get("x-forwarded-host", headers.get("host", "")).split(",")[-1].strip(),
        client_ip=_client(
            peer, forwarded.getlist("x-forwarded-for"), settings.trusted_proxies, 1 if edge else 0
        ),
        user_agent=headers.get("user-agent", "")[:256],
    )


def arrived(request: Request) -> Arrival:
    """The arrival of a request that came through the Gate."""
    found: Arrival = request.state.arrival
    return found


def known_host(arrival: Arrival, settings: Settings) -> bool:
    """Whether we answer under this name. Plain addresses cannot be rebound by DNS, so they are always
    ours.
    """
    name = arrival.hostname
    return bool(name) and (arrival.loopback or _address(name) is not None or name in settings.hosts)


def _client(
    peer: str,
    forwarded_for: Iterable[str],
    trusted: tuple[IPv4Network | IPv6Network, ...],
    strangers: int,
) -> str:
    """The nearest address that is no proxy of ours: what stands further left was written by the sender.
    `strangers` is how many proxies with addresses we do not know stand before ours.
    """
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",") if _address(hop.strip())]
    foreign = [hop for hop in reversed(hops) if not _trusted(hop, trusted)]
    if foreign:
        return foreign[min(strangers, len(foreign) - 1)]
    return hops[0] if hops else peer


def _trusted(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
