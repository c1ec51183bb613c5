"""How large the images are in content, and how much memory the web UI's takes at rest.

    .venv/bin/python bench/images.py        as root, on Linux with unshare(1) and Python 3.11

Each image is built from its Dockerfile into an empty root (tests/image_root.py), with the CPU build of torch.
Content is what the Dockerfile puts on its base: packages and code, without the base and baked weights.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deployment.images import lock
from tests.image_root import Builder, Image, download, possible
from tests.waiting import eventually

IMAGES = ("webui", "portal", "inference", "training", "tasks")
MIB = 2**20


def resident(image: Image, place: Path) -> float:
    """MiB that the web UI's process holds once it answers, and a minute's worth of health checks later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"ATELIER_PORT": str(port), "ATELIER_PORTAL_URL": "http://127.0.0.1:9"}
    child = image.start(log=place / "log", env=env)
    try:
        url = f"http://127.0.0.1:{port}/ui/healthz"
        eventually(lambda: httpx.get(url, trust_env=False).status_code == 200, within=300)
        for _ in range(60):
            httpx.get(url, trust_env=False).raise_for_status()
        return psutil.Process(child.pid).memory_info().rss / MIB
    finally:
        child.stop()


def main() -> int:
    """Build, weigh and print a table."""
    assert possible(), "this needs root, unshare(1) and Python 3.11"
    with tempfile.TemporaryDirectory() as folder:
        place, wheels = Path(folder), Path(folder) / "wheels"
        wheels.mkdir()
        for name in ("portal", "webui", "worker-cpu"):
            download(lock.LOCKS / f"{name}.txt", wheels)
        builder = Builder(place, wheels)
        print("| image | packages, MB | code, MB | built in, s |\n|---|---|---|---|")
        for name in IMAGES:
            began = time.monotonic()
            image = builder.build(name, COMPUTE="cpu")
            took = time.monotonic() - began
            packages, code = image.content("/opt/venv") / 1e6, image.content("/opt/atelier") / 1e6
            print(f"| {name} | {packages:.0f} | {code:.1f} | {took:.0f} |", flush=True)
            if name == "webui":
                print(f"memory of webui at rest: {resident(image, place):.0f} MiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
