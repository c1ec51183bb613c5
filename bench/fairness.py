"""Measure what a busy studio is to somebody who comes later, and how soon a click ends the computing.

    python bench/fairness.py [--parts 500] [--few 5] [--slots 1 8] [--size 128] [--steps 20] [--rounds 3]
        [--json FILE]

Starts `atelier up` on free ports. One user has `few` pictures made alone, then while another's `parts`
pictures wait for the same worker; then running work is interrupted, skipped and cancelled, and the seconds
from the click until its worker has let go of it are taken. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from figures import keep, table
from studio import studio

PICTURE = {"prompt": "a red circle", "sampler_name": "Euler", "steps": 20, "width": 128, "height": 128}
LONG = {**PICTURE, "steps": 150, "width": 256, "height": 256}
PER_JOB = 100
"""Pictures of one job at most."""
AWAY = 16
"""Pictures of the other one between two rounds."""
CLICKS = ("stop_now", "skip", "cancel")


class Person:
    """Somebody logged in over HTTP."""

    def __init__(self, address: str, name: str, password: str) -> None:
        body = {"username": name, "password": password}
        login = httpx.post(f"{address}/api/v1/auth/token", json=body, trust_env=False).raise_for_status()
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        self._client = httpx.Client(base_url=address, headers=bearer, timeout=60, trust_env=False)

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """The answer of /api/v1 as JSON."""
        answer = self._client.request(method, f"/api/v1{path}", json=body or None).raise_for_status()
        return answer.json() if answer.content else None

    def submit(self, pictures: int, payload: dict[str, Any]) -> str:
        """The id of a job of so many parts of one picture."""
        return str(self.ask("POST", "/jobs", txt2img_payload={**payload, "n_iter": pictures})["id"])

    def done(self, job: str) -> bool:
        """Whether it is final."""
        return self.ask("GET", f"/jobs/{job}")["state"] not in ("queued", "waking", "running")


def until(true: Callable[[], bool], every: float = 0.05, within: float = 600.0) -> float:
    """Seconds until `true` says so."""
    begun = time.perf_counter()
    while not true():
        if time.perf_counter() - begun > within:
            raise SystemExit("it took longer than ten minutes")
        time.sleep(every)
    return time.perf_counter() - begun


def seconds_of(person: Person, pictures: int, payload: dict[str, Any]) -> float:
    """Seconds from the request until the last picture is there."""
    begun = time.perf_counter()
    job = person.submit(pictures, payload)
    until(lambda: person.done(job))
    return time.perf_counter() - begun


def fairness(people: tuple[Person, ...], slots: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the few alone and beside the many, medians of rounds."""
    root, heavy, light = people
    root.ask("PATCH", "/endpoints/local", slots=slots)
    payload = {**PICTURE, "width": asked.size, "height": asked.size, "steps": asked.steps}
    seconds_of(light, 2, payload)
    alone = [seconds_of(light, asked.few, payload) for _ in range(asked.rounds)]
    jobs = [heavy.submit(min(PER_JOB, asked.parts - at), payload) for at in range(0, asked.parts, PER_JOB)]
    beside, meanwhile = [], []
    for _ in range(asked.rounds):
        # Each time somebody who was away: since the last time the other one was served more than a credit.
        wanted = _made(heavy, jobs) + AWAY
        until(lambda wanted=wanted: _made(heavy, jobs) >= wanted)
        before = _made(heavy, jobs)
        beside.append(seconds_of(light, asked.few, payload))
        meanwhile.append(_made(heavy, jobs) - before)
    left = asked.parts - _made(heavy, jobs)
    for job in jobs:
        heavy.ask("POST", f"/jobs/{job}/actions", action="cancel")
    until(lambda: _idle(root))
    first, second = statistics.median(alone), statistics.median(beside)
    return {
        "slots": slots,
        "alone_s": round(first, 2),
        "beside_s": round(second, 2),
        "ratio": round(second / first, 2),
        "worst_ratio": round(max(beside) / first, 2),
        "others_meanwhile": statistics.median(meanwhile),
        "others_left": left,
    }


def clicks(root: Person, light: Person, rounds: int) -> dict[str, list[float]]:
    """By click: seconds until the worker has let go of a running part."""
    found: dict[str, list[float]] = {}
    for click in CLICKS * rounds:
        job = light.submit(1, LONG)
        until(lambda job=job: light.ask("GET", f"/jobs/{job}")["progress"]["phase"] == "steps")
        begun = time.perf_counter()
        light.ask("POST", f"/jobs/{job}/actions", action=click)
        until(lambda: _idle(root))
        found.setdefault(click, []).append(round(time.perf_counter() - begun, 2))
    return found


def _made(person: Person, jobs: list[str]) -> int:
    """Pictures there are of those jobs."""
    return sum(int(person.ask("GET", f"/jobs/{job}")["progress"]["pictures_done"]) for job in jobs)


def _idle(root: Person) -> bool:
    return bool(root.ask("GET", "/endpoints/local")["in_flight"] == 0)


def main() -> None:
    """Run everything and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--few", type=int, default=5)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    password = secrets.token_urlsafe(16)
    with studio(password) as (address, *_):
        root = Person(address, "admin", password)
        for name in ("heavy", "light"):
            root.ask("POST", "/users", username=name, password=password, roles=["designer"])
        heavy, light = (Person(address, name, password) for name in ("heavy", "light"))
        until(lambda: root.ask("GET", "/endpoints/local")["state"] == "in_service")
        shares = [fairness((root, heavy, light), slots, asked) for slots in asked.slots]
        stopped = clicks(root, light, asked.rounds)
    print(table([*shares[0]], [[*each.values()] for each in shares]))
    print()
    print(
        table(
            ["click", "seconds until the worker let go, median", "worst"],
            [[click, statistics.median(found), max(found)] for click, found in stopped.items()],
        )
    )
    keep({"fairness": shares, "clicks": stopped}, asked.json)


if __name__ == "__main__":
    main()
