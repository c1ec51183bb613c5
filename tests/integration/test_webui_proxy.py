"""One origin: the portal's prefixes through the web UI's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from atelier.contract.routes import PREFIXES
from tests.browser.portal_double import Double
from tests.browser.stage import Stage, free_port, on_stage, webui_process
from tests.waiting import eventually

ADA = {"atelier": "session-of-ada"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with on_stage(Double(step_s=0.02), tmp_path_factory.mktemp("webui") / "webui.log") as stage:
        yield stage


@pytest.fixture
def browser(stage: Stage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stage.url, cookies=ADA, trust_env=False) as client:
        yield client


def submit(browser: httpx.Client, **payload: object) -> str:
    body = {
        "model": None,
        "txt2img_payload": {
            "prompt": "p",
            "negative_prompt": "",
            "sampler_name": "Euler",
            "steps": 20,
            "cfg_scale": 7,
            "seed": 5,
            "width": 64,
            "height": 64,
            "n_iter": 1,
            "batch_size": 1,
        }
        | payload,
    }
    return str(browser.post("/api/v1/jobs", json=body).json()["id"])


def last_seen(stage: Stage, path: str) -> dict[str, str]:
    return next(headers for _, seen, headers in reversed(stage.double.seen) if seen == path)


@pytest.mark.parametrize("prefix", [each.path for each in PREFIXES])
def test_every_prefix_of_the_table_reaches_the_portal(
    stage: Stage, browser: httpx.Client, prefix: str
) -> None:
    browser.get(f"{prefix}/somewhere")
    assert last_seen(stage, f"{prefix}/somewhere")["host"].endswith(str(stage.portal.port))


@pytest.mark.parametrize("path", ["/apix", "/portalx/login", "/filesystem", "/metrics", "/gradio_api/runs"])
def test_what_only_looks_like_a_prefix_does_not_reach_the_portal(
    stage: Stage, browser: httpx.Client, path: str
) -> None:
    assert browser.get(path).status_code == 404
    assert path not in [seen for _, seen, _ in stage.double.seen]


def test_the_portal_learns_where_the_request_came_from_and_cannot_be_told_otherwise(
    stage: Stage, browser: httpx.Client
) -> None:
    lies = {
        "X-Forwarded-For": "8.8.8.8",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=8.8.8.8",
        "X-Real-IP": "8.8.8.8",
    }
    browser.get("/api/v1/me", headers=lies)
    seen = last_seen(stage, "/api/v1/me")
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-host"] == stage.url.removeprefix("http://")
    assert seen["x-forwarded-proto"] == "http"
    assert not {"forwarded", "x-real-ip"} & set(seen)


def test_headers_for_one_connection_stay_on_it(stage: Stage, browser: httpx.Client) -> None:
    browser.get(
        "/api/v1/me",
        headers={
            "Connection": "keep-alive, X-Secret-Hop",
            "X-Secret-Hop": "1",
            "TE": "trailers",
            "X-Kept": "2",
        },
    )
    seen = last_seen(stage, "/api/v1/me")
    assert not {"x-secret-hop", "te"} & set(seen)
    assert seen["x-kept"] == "2"


def test_both_cookies_of_a_login_come_back(stage: Stage) -> None:
    form = {"username": "ada", "password": "correct horse battery", "next": "/"}
    answer = httpx.post(stage.url + "/portal/login", data=form, trust_env=False)
    assert answer.status_code == 303
    assert {cookie.split("=")[0] for cookie in answer.headers.get_list("set-cookie")} == {
        "atelier",
        "atelier-refresh",
    }


def test_a_query_arrives_as_it_was_sent(stage: Stage, browser: httpx.Client) -> None:
    assert 'value="/a b&c"' in browser.get("/portal/login?next=%2Fa%20b%26c").text.replace("'", '"')


def test_events_arrive_while_the_job_still_runs(stage: Stage, browser: httpx.Client) -> None:
    job = submit(browser, steps=100)
    with browser.stream("GET", f"/api/v1/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        first = next(line for line in answer.iter_lines() if line.startswith("data:"))
        assert stage.double.jobs[job].state in ("queued", "running"), (
            "the stream was held back until the job was over"
        )
    assert job in first
    browser.post(f"/api/v1/jobs/{job}/actions", json={"action": "cancel"})


def test_a_picture_comes_through_byte_for_byte(stage: Stage, browser: httpx.Client) -> None:
    job = submit(browser, steps=1)
    view = eventually(
        lambda: found if (found := browser.get(f"/api/v1/jobs/{job}").json())["pictures"] else None
    )
    [picture] = view["pictures"]
    answer = browser.get(picture["download_url"])
    assert answer.content == stage.double.files[picture["id"]][1]
    assert answer.headers["content-disposition"] == 'attachment; filename="00000-5.png"'
    assert answer.headers["content-security-policy"] == "sandbox"


def test_another_users_picture_and_events_do_not_exist(stage: Stage, browser: httpx.Client) -> None:
    job = submit(browser, steps=1)
    view = eventually(
        lambda: found if (found := browser.get(f"/api/v1/jobs/{job}").json())["pictures"] else None
    )
    with httpx.Client(base_url=stage.url, cookies={"atelier": "session-of-grace"}, trust_env=False) as other:
        assert other.get(view["pictures"][0]["url"]).status_code == 404
        assert other.get(f"/api/v1/jobs/{job}/events").status_code == 404


def test_a_body_of_unknown_length_is_streamed_on(stage: Stage, browser: httpx.Client) -> None:
    answer = browser.post(
        "/portal/login",
        content=iter([b"username=ada&password=", b"wrong"]),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 401
    assert last_seen(stage, "/portal/login")["transfer-encoding"] == "chunked"


def test_a_length_beside_chunks_is_not_passed_on(stage: Stage, browser: httpx.Client) -> None:
    sent = (
        b"POST /portal/login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n17\r\nusername=ada&password=x\r\n0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", browser.base_url.port or 80), 20) as line:
        line.sendall(sent)
        assert line.recv(100).startswith(b"HTTP/1.1 401")
    assert "content-length" not in last_seen(stage, "/portal/login")


def test_a_sender_who_breaks_off_is_no_defect(tmp_path: Path) -> None:
    log = tmp_path / "webui.log"
    sent = b"POST /portal/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nusername="
    with on_stage(Double(step_s=0.02), log) as stage:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(stage.url.rsplit(":", 1)[1])), 20) as line:
                line.sendall(sent)
        assert httpx.get(f"{stage.url}/portal/login", trust_env=False).status_code == 200
    assert "Traceback" not in log.read_text()


def test_many_streams_do_not_keep_others_waiting(stage: Stage, browser: httpx.Client) -> None:
    job = submit(browser, steps=150)
    watching = threading.Barrier(31)

    def watch() -> None:
        with httpx.stream(
            "GET", f"{stage.url}/api/v1/jobs/{job}/events", cookies=ADA, trust_env=False
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            watching.wait(30)
            for _ in lines:
                pass

    threads = [threading.Thread(target=watch) for _ in range(30)]
    for thread in threads:
        thread.start()
    watching.wait(30)
    assert browser.get("/api/v1/me", timeout=5).json()["username"] == "ada"
    browser.post(f"/api/v1/jobs/{job}/actions", json={"action": "cancel"})
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_while_the_portal_is_away_people_get_a_page_that_tries_again_and_programs_get_the_reason(
    tmp_path: Path,
) -> None:
    with webui_process(f"http://127.0.0.1:{free_port()}", tmp_path / "webui.log") as (url, _):
        html = {"Accept": "text/html"}
        for page in (
            httpx.get(url + "/", headers=html, cookies=ADA, trust_env=False),
            httpx.get(url + "/portal/login", headers=html, trust_env=False),
        ):
            assert page.status_code == 503
            assert 'http-equiv="refresh"' in page.text
            assert page.headers["retry-after"] == "3"
        answer = httpx.get(url + "/api/v1/jobs", trust_env=False)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "worker_unavailable"
        assert answer.json()["error"]["retryable"] is True
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert httpx.get(url + "/ui/healthz", trust_env=False).json() == {"status": "ok"}
        ready = httpx.get(url + "/ui/readyz", trust_env=False)
        assert (ready.status_code, ready.json()["faults"]) == (503, ["The portal does not answer."])


def test_the_portal_may_restart_beneath_the_web_ui(tmp_path: Path) -> None:
    with on_stage(Double(step_s=0), tmp_path / "webui.log") as stage:
        ask = lambda: httpx.get(stage.url + "/api/v1/me", cookies=ADA, trust_env=False).status_code  # noqa: E731
        assert ask() == 200
        stage.portal.stop()
        assert ask() == 503
        stage.portal.start()
        assert ask() == 200
