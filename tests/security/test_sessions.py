"""Logins that end, end everywhere; guessing costs the same whoever is guessed; nobody chooses where they come
from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from portal.api import following
from portal.api.arrival import arrival_of
from portal.services import audit
from portal.services.identity import Change
from portal.settings import load
from tests.jobs_studio import PAYLOAD
from tests.security.served import PASSWORD, Served, served_portal
from tests.waiting import eventually


@pytest.fixture
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_portal(tmp_path_factory.mktemp("sessions")) as made:
        yield made


def end_logins_of_ann(portal: Served) -> None:
    """What a new password does; her jobs go on."""
    identity = portal.studio.services.identity
    ann = next(each for each in identity.users() if each.username == "ann")
    identity.change(audit.SYSTEM, ann.id, Change(password=PASSWORD + " of another day"))


def test_a_login_that_ends_ends_the_stream_it_follows(
    portal: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert following.CHECK_SECONDS <= 5
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.0)
    ann = portal.person("ann")
    job = ann.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD}).json()["id"]
    with ann.stream("GET", f"/api/v1/jobs/{job}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: job"
        end_logins_of_ann(portal)
        rest = list(lines)
    assert not any('"cancelled"' in line for line in rest), (
        "the stream ended with the login, not with the job"
    )
    assert ann.get(f"/api/v1/jobs/{job}/events").status_code == 401
    everybodys = portal.person("root").get("/api/v1/jobs?everybody=true&state=active").json()["jobs"]
    assert [each["id"] for each in everybodys] == [job]


def test_a_login_that_ends_ends_the_call_that_waits_for_its_pictures(
    portal: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.0)
    ann, told = portal.person("ann"), dict[str, Any]()

    def wait() -> None:
        told["answer"] = ann.post("/sdapi/v1/txt2img", json=PAYLOAD)

    waiting = threading.Thread(target=wait)
    waiting.start()
    root = portal.person("root")
    accepted = lambda: root.get("/api/v1/jobs?everybody=true").json()["jobs"]  # noqa: E731
    eventually(accepted, within=60, about="the call was not taken")
    end_logins_of_ann(portal)
    waiting.join(120)
    assert told["answer"].status_code == 401
    assert "login has ended" in told["answer"].text


def test_a_name_that_nobody_has_is_looked_at_as_long_as_one_that_somebody_has(
    portal: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = portal.studio.services.identity._passwords
    hashed: list[str] = []
    really = passwords._context.verify_and_update

    def counted(password: str, stored: str) -> tuple[bool, str | None]:
        hashed.append(stored.rsplit("$", 2)[0])
        return really(password, stored)

    monkeypatch.setattr(passwords._context, "verify_and_update", counted)
    answers = [
        portal.person("").post("/api/v1/auth/token", json={"username": name, "password": "wrong"})
        for name in ("ann", "nobody")
    ]
    assert [each.status_code for each in answers] == [401, 401]
    assert answers[0].json()["error"] == answers[1].json()["error"]
    assert len(hashed) == 2
    assert hashed[0] == hashed[1], "one hash of the same cost each"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.5", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.5", ["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.5", ["1.1.1.1, 198.51.100.1, 10.0.0.6"], "198.51.100.1"),
        ("10.0.0.5", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.5", ["<script>, unknown, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.5", ["10.0.0.7, 10.0.0.6"], "10.0.0.7"),
        ("10.0.0.5", [], "10.0.0.5"),
    ],
)
def test_where_somebody_comes_from_is_what_the_nearest_trusted_proxy_saw(
    peer: str, forwarded: list[str], client: str
) -> None:
    settings = load().model_copy(update={"trusted_proxies": (ip_network("10.0.0.0/8"),)})
    headers = [(b"host", b"studio.example"), *((b"x-forwarded-for", each.encode()) for each in forwarded)]
    scope = {"type": "http", "scheme": "http", "client": (peer, 5000), "headers": headers}
    assert arrival_of(scope, settings).client_ip == client


@pytest.mark.parametrize(
    ("host", "hostname"),
    [
        ("studio.example", "studio.example"),
        ("Studio.Example:8443", "studio.example"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("127.0.0.1/evil", ""),
        ("127.0.0.1?x", ""),
        ("127.0.0.1#x", ""),
        ("127.0.0.1\\@evil.example", ""),
        ("127.0.0.1@evil.example", ""),
        ("127.0.0.1 evil.example", ""),
        ("127.0.0.1:80:80", ""),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_a_host_is_a_name_and_a_port_and_nothing_else(host: str, hostname: str) -> None:
    scope = {
        "type": "http",
        "scheme": "http",
        "client": ("10.0.0.5", 1),
        "headers": [(b"host", host.encode())],
    }
    assert arrival_of(scope, load()).hostname == hostname
