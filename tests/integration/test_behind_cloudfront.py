"""The studio behind CloudFront and a load balancer that speaks plain http: who comes, and over what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from portal.api.arrival import arrival_of
from portal.app import create_app
from portal.services import audit
from portal.settings import Settings, load
from tests.jobs_studio import Studio
from webui.edge import Edge
from webui.portal import Portal

PASSWORD = "a long enough password"
BALANCER, CLOUDFRONT, PERSON = "10.42.0.9", "130.176.1.1", "198.51.100.7"
HOP = {"X-Forwarded-Proto": "http", "X-Forwarded-For": f"{PERSON}, {CLOUDFRONT}"}
"""What the load balancer says: its own hop was http, and the nearest sender was CloudFront."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("edge")
    made = Studio(f"sqlite:///{folder / 'atelier.db'}", folder)
    made.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    yield made
    made.close()


def settings_of(studio: Studio, **more: Any) -> Settings:
    given = {
        "trusted_proxies": (ip_network("10.42.0.0/16"),),
        "public_url": "https://d1.cloudfront.net",
        "allowed_hosts": ("portal",),
    }
    return studio.services.settings.model_copy(update=given | more)


def served(studio: Studio, **more: Any) -> httpx.ASGITransport:
    """The portal as the load balancer reaches it."""
    app = create_app(replace(studio.services, settings=settings_of(studio, **more)))
    return httpx.ASGITransport(app, client=(BALANCER, 5000))


async def log_in(transport: httpx.ASGITransport) -> httpx.Response:
    headers = HOP | {"Origin": "https://d1.cloudfront.net", "Sec-Fetch-Site": "same-origin"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://d1.cloudfront.net", headers=headers
    ) as person:
        return await person.post("/portal/login", data={"username": "ann", "password": PASSWORD})


def test_who_comes_through_cloudfront_logs_in_with_a_cookie_for_https_alone(studio: Studio) -> None:
    answer = asyncio.run(log_in(served(studio, edge="cloudfront")))
    assert answer.status_code == 303
    kept = answer.headers.get_list("set-cookie")
    assert any(each.startswith("__Host-atelier=") and each.endswith("Secure") for each in kept)
    assert "Strict-Transport-Security" in answer.headers


def test_without_the_setting_plain_http_is_refused(studio: Studio) -> None:
    answer = asyncio.run(log_in(served(studio)))
    assert answer.status_code == 403
    assert "Plain http is refused" in answer.text


def test_the_web_ui_calls_the_portal_with_a_cookie_that_came_over_https(studio: Studio) -> None:
    """As on AWS with a certificate: the web UI reaches the portal by name, over http within the network."""

    async def called() -> tuple[Any, Any]:
        token = studio.services.identity.log_in("ann", PASSWORD, audit.Origin(ip=PERSON))[1].access
        portal = Portal("http://portal:8000", transport=served(studio))
        cookies = {"__Host-atelier": token}
        caller = await portal.caller(cookies)
        async with portal.client(cookies) as client:
            await client.set_own({"samples_format": "png"})
            return caller, await client.own_settings()

    caller, settings = asyncio.run(called())
    assert caller["username"] == "ann"
    assert {"samples_format": "png"}.items() <= {each["key"]: each["value"] for each in settings}.items()


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (f"{PERSON}, {CLOUDFRONT}", PERSON),
        (f"1.1.1.1, {PERSON}, {CLOUDFRONT}", PERSON),
        (f"{PERSON}, {CLOUDFRONT}, 10.42.0.8", PERSON),
        (CLOUDFRONT, CLOUDFRONT),
        ("", BALANCER),
    ],
)
def test_the_sender_is_who_cloudfront_saw(studio: Studio, forwarded: str, client: str) -> None:
    headers = [(b"host", b"d1.cloudfront.net"), (b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "scheme": "http", "client": (BALANCER, 1), "headers": headers}
    assert arrival_of(scope, settings_of(studio, edge="cloudfront")).client_ip == client


def test_a_stranger_who_says_to_be_the_edge_is_not_believed(studio: Studio) -> None:
    scope = {"type": "http", "scheme": "http", "client": ("203.0.113.5", 1), "headers": [(b"host", b"x")]}
    found = arrival_of(scope, settings_of(studio, edge="cloudfront"))
    assert (found.scheme, found.client_ip) == ("http", "203.0.113.5")


def test_the_web_uis_page_is_one_over_https() -> None:
    async def tell(scope: Any, receive: Any, send: Any) -> None:
        body = f"{scope['scheme']} {dict(scope['headers'])[b'x-forwarded-proto'].decode()}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def asked() -> str:
        transport = httpx.ASGITransport(Edge(tell), client=(BALANCER, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://d1.cloudfront.net") as person:
            return (await person.get("/", headers=HOP)).text

    assert asyncio.run(asked()) == "https https"


def test_a_databases_password_may_stand_beside_its_address() -> None:
    url = "postgresql+psycopg://atelier@db.example:5432/atelier?sslmode=require"
    joined = load(database_url=url, database_password="p/w:1@x").database
    assert joined == "postgresql+psycopg://atelier:p%2Fw%3A1%40x@db.example:5432/atelier?sslmode=require"
    said = load(database_url="postgresql+psycopg://a:own@db/atelier", database_password="other").database
    assert said == "postgresql+psycopg://a:own@db/atelier"
    assert load(database_password="other").database.startswith("sqlite:")
