"""Measure the whole studio as its users meet it: start, a job's way through it, overhead and memory.

    python bench/studio.py [--jobs 30] [--concurrent 8] [--json FILE]

Starts `atelier up` on free ports with an empty data directory, logs in over HTTP, makes pictures (128 px,
20 steps, Euler) and reads the timelines of its jobs. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from atelier.client import PortalClient
from atelier.contract import timeline
from atelier.contract.jobs import JobRequest, JobView

PAYLOAD = {
    "prompt": "a red circle on a blue background",
    "sampler_name": "Euler",
    "steps": 20,
    "width": 128,
    "height": 128,
}


def free_port() -> int:
    """A loopback port that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def studio(password: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """A running studio: (address of the web UI, its supervisor, seconds until its page answered)."""
    with tempfile.TemporaryDirectory() as folder:
        ports = {"ATELIER_PORT": str(free_port()), "ATELIER_PORTAL_PORT": str(free_port())}
        settings = {"ATELIER_DATA_DIR": folder, "ATELIER_ADMIN_PASSWORD": password, **ports}
        log = Path(folder) / "up.log"
        begun = time.monotonic()
        with log.open("wb") as out:
            command = [str(Path(sys.executable).parent / "atelier"), "up"]
            process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=out, stderr=out)
        address = f"http://127.0.0.1:{ports['ATELIER_PORT']}"
        try:
            _wait_for_page(address, process, log)
            yield address, process, time.monotonic() - begun
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _wait_for_page(address: str, process: subprocess.Popen[bytes], log: Path, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/readyz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the studio did not start:\n{log.read_text()[-2000:]}")


async def token(address: str, password: str) -> str:
    """A bearer token of the first admin."""
    async with httpx.AsyncClient(trust_env=False) as client:
        credentials = {"username": "admin", "password": password}
        answer = await client.post(f"{address}/api/v1/auth/token", json=credentials)
        answer.raise_for_status()
        return str(answer.json()["access_token"])


async def picture(client: PortalClient, seed: int) -> tuple[float, JobView]:
    """One job from the click to its picture's bytes: (seconds, the finished job)."""
    begun = time.perf_counter()
    job = await client.submit(JobRequest(txt2img_payload={**PAYLOAD, "seed": seed}))
    async for view in client.events(job.id):
        job = view
    job = await client.job(job.id)
    if not job.pictures:
        raise SystemExit(f"job {job.id} ended {job.state} without a picture: {job.error}")
    await client.file(job.pictures[0].url)
    return time.perf_counter() - begun, job


async def run(
    address: str, password: str, jobs: int, concurrent: int
) -> tuple[dict[str, Any], list[JobView]]:
    """Jobs one after another, then `concurrent` at once; figures and the finished jobs of the first kind."""
    async with PortalClient(address, token=await token(address, password)) as client:
        begun = time.perf_counter()
        await picture(client, 0)
        figures: dict[str, Any] = {"first_picture_s": round(time.perf_counter() - begun, 3)}
        single = [await picture(client, seed) for seed in range(1, jobs + 1)]
        figures["click_to_picture_s"] = percentiles([seconds for seconds, _ in single])
        figures["images_per_s_1"] = round(jobs / sum(seconds for seconds, _ in single), 3)
        begun = time.perf_counter()
        rounds = max(1, jobs // concurrent)
        for number in range(rounds):
            await asyncio.gather(
                *(picture(client, 1000 + number * concurrent + i) for i in range(concurrent))
            )
        figures[f"images_per_s_{concurrent}"] = round(rounds * concurrent / (time.perf_counter() - begun), 3)
        return figures, [job for _, job in single]


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile, rounded to milliseconds."""
    cuts = statistics.quantiles(values, n=20) if len(values) > 1 else values * 19
    return {"p50": round(statistics.median(values), 3), "p95": round(cuts[18], 3)}


def memory(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Resident MiB of each process of the studio, by what it runs."""
    found: dict[str, float] = {}
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        words = [word for word in each.cmdline() if word.startswith(("portal", "webui", "workers"))]
        name = words[0] if words else "atelier up"
        found[name] = round(found.get(name, 0) + each.memory_info().rss / 2**20, 1)
    return found


def main() -> None:
    """Run everything and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    password = secrets.token_urlsafe(16)
    with studio(password) as (address, process, seconds):
        figures: dict[str, Any] = {"page_after_s": round(seconds, 2), "memory_at_rest_mib": memory(process)}
        measured, jobs = asyncio.run(run(address, password, args.jobs, args.concurrent))
        figures |= measured
        overheads = [timeline.overhead_seconds(job.timeline) for job in jobs]
        known = [each for each in overheads if each is not None]
        figures["overhead_s"] = percentiles(known) if known else None
        figures["memory_at_work_mib"] = memory(process)
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
