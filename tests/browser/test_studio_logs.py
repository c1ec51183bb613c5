"""What the processes of a whole studio log: every id of a part's life, and none of the secrets."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.browser.stage import ADMIN_PASSWORD, Studio
from tests.waiting import eventually

PROMPT = "a vermilion heron under an aubergine moon"
WRONG = "the wrong password of this test"
PAYLOAD = {
    "prompt": PROMPT,
    "negative_prompt": "ultramarine fog of nowhere",
    "steps": 1,
    "width": 64,
    "height": 64,
}


def everything(studio: Studio) -> str:
    """All that the studio's processes have written so far."""
    files = [*(studio.data_dir / "logs").iterdir(), studio.data_dir.parent / "up.log"]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def lines(studio: Studio, word: str) -> list[dict[str, Any]]:
    """The lines with a word in them: what grep finds."""
    found = [line for line in everything(studio).splitlines() if word in line]
    return sorted((json.loads(line) for line in found), key=lambda line: str(line["at"]))


def test_one_search_finds_a_parts_whole_life_in_portal_and_worker(studio: Studio) -> None:
    with httpx.Client(base_url=studio.url, trust_env=False, timeout=60) as client:
        client.headers["Authorization"] = f"Bearer {studio.admin}"
        named = {"X-Request-Id": "heron-request-1"}
        accepted = client.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD}, headers=named)
        assert accepted.status_code == 202 and accepted.headers["X-Request-Id"] == "heron-request-1"
        job = accepted.json()["id"]
        eventually(
            lambda: client.get(f"/api/v1/jobs/{job}").json()["state"] == "succeeded",
            within=180,
            about="the job did not end",
        )
    [told] = [line for line in lines(studio, "heron-request-1") if line["message"] == "job accepted"]
    assert told["job_id"] == job and told["user_id"]
    [part] = told["parts"]
    life = eventually(
        lambda: (found := lines(studio, part)) and any(x.get("status") == 200 for x in found) and found,
        within=60,
    )
    said = [(line["process"], line["message"]) for line in life]
    for step in (
        ("portal", "job accepted"),
        ("portal", "part sent"),
        ("worker", "part received"),
        ("worker", "result stored"),
        ("worker", "POST /invocations 200"),
        ("portal", "attempt ended: succeeded"),
    ):
        assert step in said, said
    assert {line["job_id"] for line in life} == {job}
    assert {line["attempt"] for line in life if line["message"] != "job accepted"} == {1}
    proxied = [line for line in lines(studio, "heron-request-1") if line["process"] == "webui"]
    assert [line["status"] for line in proxied] == [202] and "ms" in proxied[0]
    [access] = [line for line in lines(studio, "heron-request-1") if line["logger"] == "portal.access"]
    assert (access["route"], access["status"]) == ("/api/v1/jobs", 202)


def test_a_studio_at_work_is_ready_in_all_its_processes(studio: Studio) -> None:
    for path in ("/ui/healthz", "/ui/readyz", "/healthz", "/readyz"):
        answer = httpx.get(studio.url + path, trust_env=False)
        assert answer.status_code == 200 and answer.json()["status"] in ("ok", "ready"), path


def test_no_secret_and_no_prompt_stands_in_any_log(studio: Studio) -> None:
    name, password = studio.designer()
    secrets = [ADMIN_PASSWORD, password, WRONG, PROMPT, PAYLOAD["negative_prompt"], studio.admin]
    with httpx.Client(base_url=studio.url, trust_env=False, timeout=60) as client:
        asked = client.post("/api/v1/auth/token", json={"username": name, "password": password}).json()
        client.post("/api/v1/auth/token", json={"username": name, "password": WRONG})
        client.get("/sdapi/v1/options", auth=(name, WRONG))
        page = client.post(
            "/portal/login",
            data={"username": name, "password": password, "next": "/"},
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        assert page.status_code == 303
        secrets += [asked["access_token"], asked.get("refresh_token"), *client.cookies.values()]
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {asked['access_token']}"
        made = client.post("/api/v1/me/keys", json={"name": "a key", "scopes": ["jobs.submit"]})
        assert made.status_code == 201, made.text
        secrets.append(made.json()["secret"])
        by_key = {"Authorization": f"Bearer {made.json()['secret']}"}
        # Refused with words of the prompt near it, made, and failed inside.
        unknown = {"txt2img_payload": {**PAYLOAD, "sampler_name": "no such sampler"}}
        assert client.post("/api/v1/jobs", json=unknown, headers=by_key).status_code == 422
        broken = client.post("/api/v1/jobs", content=f'{{"prompt": "{PROMPT}"', headers=by_key)
        assert broken.status_code == 422 and len(broken.json()["request_id"]) >= 8
        made_job = client.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD}, headers=by_key).json()["id"]
        eventually(
            lambda: client.get(f"/api/v1/jobs/{made_job}").json()["state"] == "succeeded",
            within=180,
            about="the job did not end",
        )
        client.get(f"/api/v1/jobs/{asked['access_token'][:200]}")
        client.get("/portal/join", params={"token": "Q7vJ3l0aXn2eR5tYu8iOpA1sD4fGh6jK9lZ_xCvB-n0"})
        secrets.append("Q7vJ3l0aXn2eR5tYu8iOpA1sD4fGh6jK9lZ_xCvB-n0")
        keys = [path.read_bytes() for path in (studio.data_dir / "secrets").iterdir()]
        secrets += [form for key in keys for form in (key.hex(), key.decode("latin-1").strip())]
    logged = eventually(
        lambda: (text := everything(studio)) and "/api/v1/me/keys" in text and text, within=60
    )
    for secret in secrets:
        assert not secret or secret not in logged, f"{secret[:4]}... stands in a log"
    for line in (studio.data_dir / "logs" / "portal.log").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["process"] == "portal", "a line that is not ours"
