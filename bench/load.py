"""Fifty people at work in a running studio: how long each of their requests takes, what fails, what memory it
needs. Needs locust (pip install -e '.[bench]').

    python bench/load.py [--users 50] [--seconds 120] [--spread 20] [--json FILE]

Starts `atelier up` on free ports with an empty data directory, and locust as a process beside it. Each person
logs in, and then by turns: has a picture made (64 px, 4 steps), watches its event stream to the end and looks
at it; looks at the gallery of their last jobs, at what is not done yet, at the models, at who they are. All
requests go through the web UI, as a browser's do. Everything that was started is stopped at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
from figures import keep, table
from studio import memory, studio

PEOPLE = Path(__file__).with_name("load_people.py")
SAMPLE_SECONDS = 2.0


def designers(address: str, password: str, number: int) -> list[str]:
    """Make that many designers with the same password; their names."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        login = {"username": "admin", "password": password}
        token = client.post("/api/v1/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        names = [f"person{each:03d}" for each in range(number)]
        for name in names:
            body = {"username": name, "password": password, "role": "designer"}
            client.post("/api/v1/users", json=body).raise_for_status()
    return names


class MostMemory:
    """The most resident MiB of each process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._done = threading.Event()
        self.most: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            try:
                now = memory(self._process)
            except psutil.NoSuchProcess:
                continue
            self.most = {name: max(now.get(name, 0), self.most.get(name, 0)) for name in {*now, *self.most}}


def load(
    address: str, names: list[str], password: str, seconds: int, spread: float, place: Path
) -> list[dict[str, str]]:
    """Let the people work; locust's lines, one for each kind of request."""
    command = [sys.executable, "-m", "locust", "-f", str(PEOPLE), "--headless", "--only-summary"]
    command += ["--users", str(len(names)), "--spawn-rate", str(max(1.0, len(names) / spread))]
    command += [
        "--run-time",
        f"{seconds}s",
        "--host",
        address,
        "--csv",
        str(place / "load"),
        "--stop-timeout",
        "20",
    ]
    told = {"LOAD_NAMES": json.dumps(names), "LOAD_PASSWORD": password, "NO_PROXY": "*"}
    with (place / "locust.log").open("wb") as log:
        subprocess.run(command, env={**os.environ, **told}, stdout=log, stderr=log, check=False)
    written = place / "load_stats.csv"
    if not written.exists():
        raise SystemExit((place / "locust.log").read_text()[-2000:])
    with written.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Run everything and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--spread", type=float, default=20.0, help="seconds over which they come")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    password = secrets.token_urlsafe(16)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place, studio(password) as (address, process, _):
        names = designers(address, password, args.users)
        rest = memory(process)
        watch = MostMemory(process)
        lines = load(address, names, password, args.seconds, args.spread, Path(place))
        watch.stop()
    rows = [
        (
            line["Name"],
            line["Request Count"],
            line["Failure Count"],
            *(round(float(line[each])) for each in ("50%", "95%", "99%", "Max Response Time")),
        )
        for line in lines
        if line["50%"] not in ("", "N/A")
    ]
    print(table(("request", "number", "failed", "p50 ms", "p95 ms", "p99 ms", "longest ms"), rows))
    print()
    print(
        table(
            ("process", "MiB at rest", "most MiB"),
            [(name, rest.get(name, ""), most) for name, most in sorted(watch.most.items())],
        )
    )
    after = os.getloadavg()[0]
    print(
        f"\n{args.users} people, {args.seconds} s; "
        f"load of the machine {before:.1f} before, {after:.1f} at the end"
    )
    kept: dict[str, Any] = {
        "requests": rows,
        "rest_mib": rest,
        "most_mib": watch.most,
        "load": [before, after],
    }
    keep(kept, args.json)


if __name__ == "__main__":
    main()
