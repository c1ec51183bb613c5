"""Measure the studio with the adapters of AWS, in the rehearsal on this machine.

    python bench/rehearsal.py [--jobs 50] [--wakes 3] [--json FILE]

Starts `atelier up --simulate-aws` with a clock that goes as real time does. Overhead: jobs one after another
on one instance, from accepted to visible less the engine's time (atelier.contract.timeline). Wake-up: with
the endpoint at zero instances, simulated seconds from a job until an instance is asked for and until it
serves, beside the bound that the policy itself has. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from studio import free_port, percentiles, picture, token

from atelier.client import PortalClient
from atelier.contract import timeline
from atelier.contract.jobs import JobRequest

PERIOD, TICK, SWEEP, SPREAD = 10.0, 10.0, 2.0, 1.1
"""Seconds of a period of the policy's alarm, between two looks at it, between two publications of the demand
by the portal; and how much longer than usual AWS takes at most here.
"""
PAYLOAD = {"prompt": "a red circle", "sampler_name": "Euler", "steps": 20, "width": 128, "height": 128}


@contextmanager
def rehearsed(password: str) -> Iterator[tuple[str, str]]:
    """(address of the studio, address of the rehearsal's own API)."""
    with tempfile.TemporaryDirectory() as folder:
        ports = {"ATELIER_PORT": str(free_port()), "ATELIER_PORTAL_PORT": str(free_port())}
        settings = {"ATELIER_DATA_DIR": folder, "ATELIER_ADMIN_PASSWORD": password, **ports}
        log = Path(folder) / "up.log"
        with log.open("wb") as out:
            command = [str(Path(sys.executable).parent / "atelier"), "up", "--simulate-aws", "--speed", "1"]
            process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=out, stderr=out)
        try:

            def greeted() -> str | None:
                if process.poll() is not None:
                    raise SystemExit(f"the studio did not start:\n{log.read_text()[-2000:]}")
                found = re.search(r"Account  (\S+)/state", log.read_text())
                return found and found[1]

            yield f"http://127.0.0.1:{ports['ATELIER_PORT']}", until(greeted, 180.0)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(90)


def until(look: Callable[[], Any], within: float, pause: float = 0.1) -> Any:
    """The first true value of `look()`. Ends the program where none comes."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(pause)
    raise SystemExit(f"nothing came within {within:g} s")


class Account:
    """The rehearsal's clock and its one endpoint."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=120.0)

    def state(self) -> dict[str, Any]:
        """Everything."""
        found: dict[str, Any] = self._http.get("/state").json()
        return found | found["endpoints"].get("atelier-studio", {})

    def advance(self, seconds: float) -> None:
        """Let simulated time go by."""
        self._http.post("/advance", json={"seconds": seconds})

    def served(self) -> None:
        """Go on until an instance serves."""

        def serves() -> bool:
            state = self.state()
            if not state.get("serving") and not state["computing"]:
                self.advance(10.0)
            return bool(state.get("serving"))

        until(serves, 300.0)

    def asleep(self) -> None:
        """Go on until the endpoint is at zero and in service."""

        def sleeps() -> bool:
            state = self.state()
            if state["wanted"] or state["status"] != "InService":
                self.advance(60.0)
            return state["status"] == "InService" and state["wanted"] == state["serving"] == 0

        until(sleeps, 300.0, pause=0.5)


async def overhead(address: str, password: str, jobs: int) -> dict[str, Any]:
    """Jobs one after another, the first of which is not counted."""
    async with PortalClient(address, token=await token(address, password)) as client:
        await picture(client, 0)
        made = [await picture(client, seed) for seed in range(1, jobs + 1)]
    known = [timeline.overhead_seconds(job.timeline) for _, job in made]
    return {
        "jobs": jobs,
        "click_to_picture_s": percentiles([seconds for seconds, _ in made]),
        "overhead_s": percentiles([each for each in known if each is not None]),
    }


async def wake(address: str, password: str, account: Account) -> dict[str, float]:
    """One job at an endpoint that sleeps: simulated seconds until it is asked for, and until it serves."""
    async with PortalClient(address, token=await token(address, password)) as client:
        # One of the ten seconds of a period that differs from call to call, as people come.
        begun = account.state()["now"]
        job = await client.submit(JobRequest(txt2img_payload={**PAYLOAD, "seed": 1}))
        decided = await asyncio.to_thread(until, lambda: _asked_since(account, begun), 120.0, 0.05)
        serving = await asyncio.to_thread(_serving_since, account)
        async for _ in client.events(job.id):
            pass
    return {"asked_s": round(decided - begun, 1), "serving_s": round(serving - begun, 1)}


def _asked_since(account: Account, begun: float) -> float | None:
    moves = [each for each in account.state()["activities"] if each["at"] >= begun and not each["refused"]]
    return moves[0]["at"] if moves else None


def _serving_since(account: Account) -> float:
    """The simulated moment of the first service, to a second."""

    def serves() -> float | None:
        state = account.state()
        if state["serving"]:
            return float(state["now"])
        if not state["computing"]:
            account.advance(1.0)
        return None

    return float(until(serves, 300.0, pause=0.001))


def main() -> None:
    """Run everything and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--wakes", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    password = secrets.token_urlsafe(16)
    with rehearsed(password) as (address, api):
        account = Account(api)
        account.served()
        figures: dict[str, Any] = {"overhead": asyncio.run(overhead(address, password, args.jobs))}
        figures["wakes"] = []
        for number in range(args.wakes):
            _sleep_from_now_on(address, password)
            account.asleep()
            account.advance(3.7 * number)
            figures["wakes"].append(asyncio.run(wake(address, password, account)))
        figures["bound"] = {
            "asked_s": PERIOD + TICK + SWEEP,
            "serving_s": round(PERIOD + TICK + SWEEP + SPREAD * account.state()["to_serve"], 1),
        }
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def _sleep_from_now_on(address: str, password: str) -> None:
    """Let the endpoint go to zero after a minute without work."""
    headers = {"Authorization": f"Bearer {asyncio.run(token(address, password))}"}
    change = {"min_instances": 0, "idle_seconds": 60.0}
    url = f"{address}/api/v1/endpoints/studio"
    httpx.patch(url, json=change, headers=headers, trust_env=False).raise_for_status()


if __name__ == "__main__":
    main()
