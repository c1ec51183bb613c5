"""Writes the hash-locked requirement files of the images, `deployment/images/locks/*.txt`.

    python3.11 deployment/images/lock.py

pip resolves what pyproject.toml's extras ask for under constraints.txt, as the images will: Linux on x86_64,
Python 3.11, wheels alone. Each package is written down with its version and the sha256 of the one file that
was chosen. Nothing large is downloaded: pip reads a wheel's metadata from its end. The CPU build of torch is
not on PyPI: TORCH_INDEX names an index that has it, else PIP_FIND_LINKS a folder with its wheel.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent / "locks"
PIP = "pip==26.3"
"""What resolves: with `--dry-run --use-feature=fast-deps` it fetches no wheel that can be read in ranges."""
_SILENCED = ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_NO_INDEX")


@dataclass(frozen=True)
class Lock:
    """What one file locks: extras of pyproject.toml under a constraints file. `torch_build` is the local
    version of torch that is asked for, such as cpu; without one PyPI's.
    """

    extras: tuple[str, ...]
    constraints: str = "constraints.txt"
    torch_build: str = ""


@dataclass(frozen=True)
class Pin:
    """One package of a lock file: its normalised name, its version, the sha256 of its wheel in hex."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} \\\n    --hash=sha256:{self.sha256}\n"


FILES: Mapping[str, Lock] = {
    "portal": Lock(("portal", "postgres", "aws")),
    "webui": Lock(("webui",)),
    "worker-cpu": Lock(("worker", "aws"), torch_build="cpu"),
    "worker-cuda": Lock(("worker", "aws", "cuda"), "constraints-cuda.txt"),
}
"""File name without its ending -> what it locks."""


def normalised(name: str) -> str:
    """A package's name as the index writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extras: tuple[str, ...]) -> list[str]:
    """What pyproject.toml asks for: its own dependencies and those of `extras`."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chosen = [each for extra in extras for each in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *chosen]


def pinned(path: Path) -> dict[str, str]:
    """Name -> version of a constraints file and of those it refers to."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-c "):
            found |= pinned(path.parent / line.removeprefix("-c ").strip())
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            found[normalised(name)] = version.strip()
    return found


def read(path: Path) -> list[Pin]:
    """The pins of a lock file. Raises ValueError for a line that is none."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    pins = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+) +--hash=sha256:([0-9a-f]{64})", line)
        if match is None:
            raise ValueError(f"{path.name}: {line!r} is no name==version with one sha256")
        pins.append(Pin(*match.groups()))
    return pins


def resolved(pip: Path, lock: Lock) -> list[Pin]:
    """What pip takes for `lock` from the index, by name. Raises SystemExit where it cannot."""
    wanted = requirements(lock.extras)
    if lock.torch_build:
        wanted.append(f"torch=={pinned(ROOT / lock.constraints)['torch']}+{lock.torch_build}")
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        command = [
            pip,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-cache-dir",
        ]
        command += ["--use-feature=fast-deps", "--only-binary", ":all:", "--report", report]
        command += ["--constraint", ROOT / lock.constraints, *wanted]
        if subprocess.run(command, env=_environment(lock), cwd=ROOT, check=False).returncode:
            raise SystemExit("pip could not resolve this: see above.")
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted((_pin(item) for item in items), key=lambda pin: pin.name)


def installer(place: Path) -> Path:
    """The interpreter of a new environment below `place` whose pip resolves by metadata."""
    venv.create(place, with_pip=True)
    interpreter = place / "bin" / "python"
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", PIP], check=True)
    return interpreter


def _environment(lock: Lock) -> dict[str, str]:
    """The index alone counts, whatever this machine's pip is set to: only torch's CPU build is elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in _SILENCED}
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if lock.torch_build:
        kept["PIP_EXTRA_INDEX_URL"] = os.environ.get("TORCH_INDEX", "")
        kept["PIP_FIND_LINKS"] = os.environ.get("PIP_FIND_LINKS", "")
    return kept


def _pin(item: Mapping[str, Any]) -> Pin:
    name, source = normalised(item["metadata"]["name"]), item["download_info"]
    if source["url"].startswith("file:") and name != "torch":
        raise SystemExit(f"{name} came from this machine's disk and not from the index: see PIP_FIND_LINKS.")
    return Pin(name, item["metadata"]["version"], source["archive_info"]["hashes"]["sha256"])


def _written(name: str, lock: Lock, pins: list[Pin]) -> str:
    head = (
        f"# {name}: the extras {', '.join(lock.extras)} under {lock.constraints}.\n"
        "# For Linux on x86_64 and Python 3.11. Written by deployment/images/lock.py.\n"
    )
    return head + "".join(map(str, pins))


def main() -> int:
    """Write every file."""
    if (sys.version_info[:2], sys.platform, platform.machine()) != ((3, 11), "linux", "x86_64"):
        raise SystemExit("The images are Linux on x86_64 with Python 3.11, and so must be what locks them.")
    with tempfile.TemporaryDirectory() as place:
        pip = installer(Path(place))
        for name, lock in FILES.items():
            pins = resolved(pip, lock)
            (LOCKS / f"{name}.txt").write_text(_written(name, lock, pins), encoding="utf-8")
            sys.stdout.write(f"{name}: {len(pins)} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
