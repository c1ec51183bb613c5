"""Fetching from sites that mean harm: what was checked is what is reached, and everything has an end."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from atelier.contract.errors import (
    AtelierError,
    InvalidRequest,
    ModelUnusable,
    NotFound,
    NotPermitted,
    PayloadTooLarge,
    StorageFull,
    TooManyRequests,
    WorkerUnavailable,
)
from atelier.outbound import Machine, Reach
from tests.sites import Site, broken, certified, file, head, redirect, status
from workers.tasks import fetching
from workers.tasks.connecting import Patience, certificates
from workers.tasks.fetching import Fetched, Fetcher, Terms

LOOPBACK = Reach(("*",), (ipaddress.ip_network("127.0.0.1/32"),))
QUICK = Patience(connect=5, begin=5, silence=5, window=5, pause=0)
DATA = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def site(served: Site) -> Site:
    served.asked.clear()
    return served


Fetch = Callable[..., Fetched]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetches below a folder of the test's own, under terms that it may change."""

    def fetched(url: str, *, sha256: str = "", size: int | None = None, **terms: object) -> Fetched:
        under = {"reach": LOOPBACK, "limit": 2**24, "seconds": 60.0, "patience": QUICK, **terms}
        path = tmp_path / "fetched"
        path.unlink(missing_ok=True)
        return Fetcher(Terms(**under)).fetch(url, path, lambda _done, _all: None, sha256=sha256, size=size)  # type: ignore[arg-type]

    return fetched


def test_a_file_arrives_whole_with_its_hash_and_its_name(site: Site, fetch: Fetch) -> None:
    url = site.put(
        "/m.safetensors", file(DATA, Content_Disposition='attachment; filename="a/b/ink.safetensors"')
    )
    found = fetch(url)
    assert found.path.read_bytes() == DATA
    assert (found.size, found.sha256, found.filename) == (
        len(DATA),
        hashlib.sha256(DATA).hexdigest(),
        "ink.safetensors",
    )
    assert fetch(url, sha256=found.sha256.upper()).verified and not found.verified
    [(_, headers), _] = site.asked
    assert headers["accept-encoding"] == "identity" and headers["host"] == site.name


@pytest.mark.parametrize(
    "to",
    ["http://169.254.169.254/latest/meta-data/iam/", "http://[fd00:ec2::254]/", "http://127.0.0.2/x",
     "http://2852039166/", "http://0xa9fea9fe/", "http://[::ffff:169.254.169.254]/", "https://10.0.0.1/x",
     "//169.254.169.254/x", "http://user:pass@example.com/", "file:///etc/passwd", "gopher://127.0.0.1:6379/x"],
)  # fmt: skip
def test_a_redirect_is_checked_as_the_first_address_was(site: Site, fetch: Fetch, to: str) -> None:
    url = site.put("/away", redirect(to))
    with pytest.raises((NotPermitted, InvalidRequest)) as refused:
        fetch(url)
    assert "root:" not in refused.value.message
    assert site.paths() == ["/away"]


def test_the_last_of_several_redirects_is_checked_too_and_there_is_no_endless_row(
    site: Site, fetch: Fetch
) -> None:
    for number in range(4):
        site.put(f"/hop{number}", redirect(f"/hop{number + 1}"))
    site.put("/hop4", redirect("http://169.254.169.254/"))
    with pytest.raises(NotPermitted):
        fetch(site.url + "/hop0")
    assert len(site.asked) == 5
    site.put("/round", redirect("/round"))
    site.asked.clear()
    with pytest.raises(InvalidRequest, match="on and on"):
        fetch(site.url + "/round")
    assert len(site.asked) == fetching.REDIRECTS + 1
    assert fetch(site.put("/once", redirect(site.put("/there", DATA)))).size == len(DATA)


def test_a_name_that_turns_to_another_machine_between_looking_and_connecting_gains_nothing(
    site: Site, fetch: Fetch
) -> None:
    url, asked = site.put("/m", DATA).replace("127.0.0.1", "rebinding.example"), []

    def first_this_then_that(host: str, _port: int) -> list[Machine]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "169.254.169.254")]

    assert fetch(url, sha256=hashlib.sha256(DATA).hexdigest(), resolve=first_this_then_that).size == len(DATA)
    assert asked == ["rebinding.example"], "looked up once, and connected to what was found"
    with pytest.raises(NotPermitted) as refused:
        fetch(url, sha256="0" * 64, resolve=first_this_then_that)
    assert "169.254" not in refused.value.message
    assert len(site.asked) == 1


def test_every_hop_is_looked_up_anew_and_names_that_lead_inward_are_closed(site: Site, fetch: Fetch) -> None:
    inner = {
        "outer.example": ["127.0.0.1"],
        "inner.example": ["192.168.0.7"],
        "both.example": ["127.0.0.1", "10.0.0.1"],
    }

    def named(host: str, _port: int) -> list[Machine]:
        return [ipaddress.ip_address(each) for each in inner[host]]

    port = site.name.rpartition(":")[2]
    site.put("/to-inner", redirect(f"http://inner.example:{port}/secret"))
    for url in (f"http://outer.example:{port}/to-inner", f"http://both.example:{port}/m"):
        with pytest.raises(NotPermitted, match="not public"):
            fetch(url, sha256="0" * 64, resolve=named)
    assert site.paths() == ["/to-inner"]


def test_proxies_of_the_environment_are_not_asked(
    site: Site, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Site()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("no_proxy", "")
    assert fetch(site.put("/direct", DATA)).size == len(DATA)
    assert proxy.asked == []
    proxy.close()


def test_only_named_hosts_are_asked_and_a_redirect_leaves_them_no_more_than_the_address(
    site: Site, fetch: Fetch
) -> None:
    here = lambda *_: [ipaddress.ip_address("127.0.0.1")]  # noqa: E731
    port = site.name.rpartition(":")[2]
    few = Reach(("models.example", "*.cdn.example"), LOOPBACK.networks)
    site.put("/m", DATA)
    site.put("/cdn", redirect(f"http://eu.cdn.example:{port}/m"))
    site.put("/evil", redirect(f"http://evil.example:{port}/m"))
    known = hashlib.sha256(DATA).hexdigest()
    assert fetch(f"http://models.example:{port}/cdn", sha256=known, reach=few, resolve=here).size == len(DATA)
    for url in (f"http://models.example:{port}/evil", f"http://other.example:{port}/m"):
        with pytest.raises(NotPermitted, match="ATELIER_IMPORT_HOSTS"):
            fetch(url, sha256=known, reach=few, resolve=here)


def test_a_token_goes_to_its_own_site_and_to_nobody_else(site: Site, fetch: Fetch) -> None:
    other = Site()
    other.put("/m", DATA)
    site.put("/go", redirect(other.url + "/m"))
    site.put("/stay", redirect("/m"))
    site.put("/m", DATA)
    for path in ("/go", "/stay"):
        fetch(site.url + path, token="hf_secret_token", token_site=site.name)
    fetch(other.url + "/m", token="hf_secret_token", token_site=site.name)
    assert [headers.get("authorization") for _, headers in site.asked] == ["Bearer hf_secret_token"] * 3
    assert [headers.get("authorization") for _, headers in other.asked] == [None, None]
    other.close()


def test_plain_http_from_a_public_site_needs_the_files_hash(fetch: Fetch) -> None:
    with pytest.raises(InvalidRequest, match="sha256"):
        fetch("http://models.example/m.safetensors")


def test_a_file_is_never_larger_than_the_limit_whatever_its_head_says(site: Site, fetch: Fetch) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Transfer-Encoding": "chunked"})
        for _ in range(4000):
            handler.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")

    written = len(DATA)
    for path, reply in (
        ("/said", lambda handler: head(handler, 200, {"Content-Length": str(2**60)})),
        ("/endless", endless),
        ("/unsaid", lambda handler: (head(handler, 200, {}), handler.wfile.write(bytes(written)))),
    ):
        with pytest.raises(PayloadTooLarge, match="ATELIER_MAX_MODEL_BYTES"):
            fetch(site.put(path, reply), limit=written // 2)
    path = fetch(site.put("/fits", DATA), limit=written).path
    assert path.stat().st_size == written


def test_a_length_that_lies_is_found_out(site: Site, fetch: Fetch) -> None:
    def short(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Content-Length": str(len(DATA) + 10)})
        handler.wfile.write(DATA)

    with pytest.raises(WorkerUnavailable):
        fetch(site.put("/short", short))
    assert len(site.asked) == fetching.TRIES
    with pytest.raises(InvalidRequest, match="another file"):
        fetch(site.put("/long", DATA), size=len(DATA) - 1)
    with pytest.raises(WorkerUnavailable, match="broke off"):
        fetch(site.put("/less", DATA), size=len(DATA) + 1)
    for length in ("-5", "1e3", "0x10", "5, 6", "٣"):
        with pytest.raises(AtelierError):
            fetch(
                site.put(
                    "/odd", lambda handler, length=length: head(handler, 200, {"Content-Length": length})
                )
            )


def test_a_bomb_is_not_unpacked(site: Site, fetch: Fetch) -> None:
    bomb = gzip.compress(bytes(2**24))
    for coding in ("gzip", "br", "zstd", "deflate, gzip"):
        with pytest.raises(ModelUnusable, match="packed"):
            fetch(site.put("/bomb", file(bomb, Content_Encoding=coding)))
    found = fetch(site.put("/plain.gz", file(bomb)))
    assert found.size == len(bomb), "a packed file without a word about it stays what it is"


def test_a_file_that_is_another_one_is_thrown_away_in_words(site: Site, fetch: Fetch) -> None:
    url = site.put("/m", DATA)
    with pytest.raises(InvalidRequest, match="that was given") as refused:
        fetch(url, sha256="ab" * 32)
    assert refused.value.detail == {"sha256": hashlib.sha256(DATA).hexdigest(), "expected": "ab" * 32}
    site.put("/linked", redirect("/m", X_Linked_Etag=f'"{"cd" * 32}"'))
    with pytest.raises(InvalidRequest, match="the site states"):
        fetch(site.url + "/linked")


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>log in</html>", b"\n <HTML>", b"<?xml version='1.0'?><Error/>"]
)
def test_a_web_page_in_place_of_a_file_is_told(site: Site, fetch: Fetch, page: bytes) -> None:
    with pytest.raises(ModelUnusable, match="web page"):
        fetch(site.put("/page", file(page, Content_Type="application/octet-stream")))

    def in_crumbs(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Transfer-Encoding": "chunked"})
        for letter in page:
            handler.wfile.write(b"1\r\n" + bytes([letter]) + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    with pytest.raises(ModelUnusable, match="web page"):
        fetch(site.put("/crumbs", in_crumbs))


def test_what_broke_off_goes_on_where_it_was_and_begins_anew_where_the_file_changed(
    site: Site, fetch: Fetch
) -> None:
    known = hashlib.sha256(DATA).hexdigest()
    assert fetch(site.put("/m", broken(DATA, 300_000))).sha256 == known
    [_, (_, again)] = site.asked
    assert again["range"].startswith("bytes=") and again["if-range"].startswith('"')
    other = DATA[::-1]
    assert (
        fetch(site.put("/m", broken(DATA, 300_000, file(other)))).sha256 == hashlib.sha256(other).hexdigest()
    )
    assert (
        fetch(site.put("/m", broken(DATA, 300_000, lambda h: (head(h, 200, {}), h.wfile.write(DATA))))).sha256
        == known
    )

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 206, {"Content-Length": "9", "Content-Range": f"bytes 1-9/{len(DATA)}"})
        handler.wfile.write(DATA[1:10])

    with pytest.raises(WorkerUnavailable, match="another piece"):
        fetch(site.put("/m", broken(DATA, 300_000, elsewhere)))


def test_a_site_that_drips_or_falls_silent_is_left(site: Site, fetch: Fetch) -> None:
    gone = threading.Event()

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Content-Length": "100000"})
        while not gone.wait(0.01):
            handler.wfile.write(b"x")

    def silent(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, {"Content-Length": "100000"})
        handler.wfile.write(b"x")
        gone.wait(30)

    def never_begins(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not gone.wait(0.01):
            handler.wfile.write(b"X: y\r\n")

    long = Patience(connect=20, begin=20, silence=20, window=20, pause=0)
    try:
        for path, reply, limits, said in (
            ("/drip", dripping, {"window": 0.1}, "next to nothing"),
            ("/silent", silent, {"silence": 0.1}, "silent"),
            ("/head", never_begins, {"begin": 0.1}, "did not begin|silent"),
        ):
            with pytest.raises(WorkerUnavailable, match=said):
                fetch(site.put(path, reply), patience=replace(long, **limits))
        with pytest.raises(WorkerUnavailable, match="ATELIER_IMPORT_HOURS"):
            fetch(site.put("/drip", dripping), seconds=0.1, patience=long)
    finally:
        gone.set()


def test_a_full_disk_is_told_before_and_while_it_is_written(
    site: Site, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("/m", DATA)
    usage = fetching.shutil.disk_usage("/")
    monkeypatch.setattr(
        fetching.shutil, "disk_usage", lambda _: usage._replace(free=fetching.SPARE + len(DATA) - 1)
    )
    with pytest.raises(StorageFull, match="no room"):
        fetch(url)
    monkeypatch.undo()
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(StorageFull, match="disk is full"):
        fetching.write(full, b"x")


@pytest.mark.parametrize(
    ("code", "error"),
    [(401, NotPermitted), (403, NotPermitted), (404, NotFound), (410, NotFound), (429, TooManyRequests),
     (500, WorkerUnavailable), (503, WorkerUnavailable), (418, InvalidRequest), (204, InvalidRequest)],
)  # fmt: skip
def test_a_sites_refusal_says_what_to_do(
    site: Site, fetch: Fetch, code: int, error: type[AtelierError]
) -> None:
    with pytest.raises(error) as refused:
        fetch(site.put("/refused", status(code)) + "?signature=secret")
    assert site.name in refused.value.message and "secret" not in refused.value.message


def test_no_host_no_port_and_no_http_are_told(site: Site, fetch: Fetch, free_port: int) -> None:
    def nobody(host: str, port: int) -> list[Machine]:
        raise NotFound(f"There is no host {host}, or its name cannot be looked up now.")

    with pytest.raises(NotFound, match="no host"):
        fetch("https://nowhere.invalid/x", resolve=nobody)
    with pytest.raises(WorkerUnavailable, match="failed"):
        fetch(f"http://127.0.0.1:{free_port}/x")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=lambda: [_babble(plain) for _ in range(fetching.TRIES)], daemon=True)
        thread.start()
        with pytest.raises(WorkerUnavailable):
            fetch(f"http://127.0.0.1:{plain.getsockname()[1]}/x")
        thread.join(10)


def _babble(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")


def test_over_https_the_site_proves_that_it_is_the_one_that_was_named(
    fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = certified(["models.example"], tmp_path)
    site = Site(tls)
    site.put("/m", DATA)
    port = site.name.rpartition(":")[2]
    site.put("/down", redirect(f"http://models.example:{port}/m"))
    here = lambda *_: [ipaddress.ip_address("127.0.0.1")]  # noqa: E731
    certificates.cache_clear()
    with pytest.raises(WorkerUnavailable, match="certificate"):
        fetch(f"https://models.example:{port}/m", resolve=here)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    certificates.cache_clear()
    try:
        found = fetch(
            f"https://models.example:{port}/m",
            resolve=here,
            token="t" * 20,
            token_site=f"models.example:{port}",
        )
        assert found.size == len(DATA)
        assert site.asked[-1][1]["authorization"] == "Bearer " + "t" * 20
        for url, said in (
            (f"https://other.example:{port}/m", "certificate"),
            (f"https://models.example:{port}/down", "from https to http"),
        ):
            with pytest.raises((WorkerUnavailable, InvalidRequest), match=said):
                fetch(url, resolve=here)
    finally:
        certificates.cache_clear()
        site.close()
