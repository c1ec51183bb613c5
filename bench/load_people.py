"""What the people of `bench/load.py` do: read by locust, which replaces the blocking calls of its process."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from typing import Any

from locust import HttpUser, between, task
from locust.exception import StopUser

NAMES = itertools.cycle(json.loads(os.environ.get("LOAD_NAMES", '["nobody"]')))
PASSWORD = os.environ.get("LOAD_PASSWORD", "")
PAYLOAD = {
    "prompt": "a red circle on a blue background",
    "sampler_name": "Euler",
    "steps": 4,
    "width": 64,
    "height": 64,
}
LONGEST_STREAM_S = 120
TRIES = 20


class Designer(HttpUser):
    """One person: mostly looks, and now and then has a picture made."""

    wait_time = between(1.0, 5.0)

    def on_start(self) -> None:
        """Log in; again after a while where too many do at once."""
        login = {"username": next(NAMES), "password": PASSWORD}
        for _ in range(TRIES):
            with self.client.post(
                "/api/v1/auth/token", json=login, name="log in", catch_response=True
            ) as answer:
                if answer.status_code == 200:
                    self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
                    self.client.cookies.clear()
                    return
                if answer.status_code != 429:
                    raise StopUser
                answer.success()
            time.sleep(float(answer.headers.get("Retry-After", "5")))
        raise StopUser

    @task(3)
    def make(self) -> None:
        """Submit, watch the events to the end, look at the picture."""
        payload = {**PAYLOAD, "seed": random.randrange(2**31)}  # noqa: S311
        with self.client.post(
            "/api/v1/jobs", json={"txt2img_payload": payload}, name="submit", catch_response=True
        ) as answer:
            if answer.status_code == 429:
                answer.success()  # back-pressure is an answer, not a failure
                time.sleep(float(answer.headers.get("Retry-After", "5")))
                return
            if answer.status_code != 202:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return
            job = answer.json()["id"]
        last = self._watched(job)
        for picture in last.get("pictures", []):
            self.client.get(picture["url"], name="picture")

    @task(3)
    def gallery(self) -> None:
        """The last jobs with their pictures."""
        self.client.get("/api/v1/jobs?limit=50", name="gallery")

    @task(2)
    def models(self) -> None:
        """What can be drawn with."""
        self.client.get("/api/v1/models", name="models")

    @task(1)
    def running(self) -> None:
        """What is not done yet: asked by a page that is opened again."""
        self.client.get("/api/v1/jobs?state=active", name="active jobs")

    @task(1)
    def me(self) -> None:
        """Who I am."""
        self.client.get("/api/v1/me", name="me")

    def _watched(self, job: str) -> dict[str, Any]:
        """The job as the last event tells it. Two times are told: until the stream began, and its length."""
        view: dict[str, Any] = {}
        begun = time.perf_counter()
        with self.client.get(
            f"/api/v1/jobs/{job}/events",
            stream=True,
            name="events: stream begins",
            timeout=LONGEST_STREAM_S,
            catch_response=True,
        ) as answer:
            if answer.status_code != 200:
                answer.failure(str(answer.status_code))
                return view
            answer.success()
            for line in answer.iter_lines():
                if line.startswith(b"data: "):
                    view = json.loads(line[6:])
        ended = view.get("state") == "succeeded"
        self.environment.events.request.fire(
            request_type="SSE",
            name="picture: click to last event",
            response_time=1000 * (time.perf_counter() - begun),
            response_length=0,
            exception=None if ended else RuntimeError(f"the stream ended with {view.get('state')}"),
            context={},
        )
        return view
