"""Finds a Chromium for the browser tests, or installs one: `python -m tests.browser.chromium` says which.

The system's comes first, then Playwright's own, then the one of npm's @sparticuz/chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--process-per-site",
)

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

CACHE = Path(sys.prefix) / "chromium"
"""Where an installed browser goes: inside the virtual environment, so that `make clean` takes it away."""

INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Chromium:
    """A browser that can be started: where it is, whose it is, and the libraries it brings."""

    path: Path
    whose: str
    libraries: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment it is started with."""
        extra = {"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {}
        return {**os.environ, **extra}

    def version(self) -> str:
        """What it calls itself. Raises OSError or CalledProcessError where it cannot run on this machine."""
        answer = subprocess.run(
            [str(self.path), "--version", "--no-sandbox"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return answer.stdout.strip()


def systems() -> Chromium | None:
    """The one on the PATH."""
    found = next((path for name in SYSTEM_NAMES if (path := shutil.which(name))), None)
    return Chromium(Path(found), "the system's") if found else None


def playwrights(*, install: bool) -> Chromium | None:
    """The one Playwright keeps in its cache, downloaded first where `install` allows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    if not path.exists() and install:
        _quietly([sys.executable, "-m", "playwright", "install", "chromium"])
    return Chromium(path, "Playwright's") if path.exists() else None


def npms(*, install: bool) -> Chromium | None:
    """The one packed for servers in npm's @sparticuz/chromium, unpacked together with its libraries."""
    path, libraries = CACHE / "chromium", CACHE / "lib"
    if not path.exists() and install and shutil.which("npm"):
        CACHE.mkdir(parents=True, exist_ok=True)
        _quietly(["npm", "install", "--prefix", str(CACHE), "--no-audit", "--no-fund", "@sparticuz/chromium"])
        packed = CACHE / "node_modules" / "@sparticuz" / "chromium" / "bin"
        if (packed / "chromium.br").exists():
            _unpack(packed)
    return Chromium(path, "npm's @sparticuz/chromium", libraries) if path.exists() else None


def _unpack(packed: Path) -> None:
    import brotli

    for archive in ("al2023.tar.br", "swiftshader.tar.br"):
        if (packed / archive).exists():
            unpacked = CACHE / archive.removesuffix(".br")
            unpacked.write_bytes(brotli.decompress((packed / archive).read_bytes()))
            with tarfile.open(unpacked) as tar:
                tar.extractall(CACHE, filter="data")
            unpacked.unlink()
    partial = CACHE / "chromium.partial"
    partial.write_bytes(brotli.decompress((packed / "chromium.br").read_bytes()))
    partial.chmod(0o755)
    partial.rename(CACHE / "chromium")


def _quietly(command: list[str]) -> None:
    """Run an installer; whether it worked shows in what is there afterwards."""
    try:
        subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


def find(*, install: bool = False) -> Chromium | None:
    """The first Chromium that starts on this machine, None where there is none."""
    for candidate in (systems, lambda: playwrights(install=install), lambda: npms(install=install)):
        found = candidate()
        try:
            if found is not None and found.version():
                return found
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def main() -> int:
    """Say which Chromium the browser tests will drive; install one where there is none."""
    found = find(install=True)
    if found is None:
        sys.stderr.write(
            "No Chromium was found and none could be installed: the browser tests cannot run.\n"
            "Install one (Debian: apt-get install chromium) and try again.\n"
        )
        return 1
    sys.stdout.write(f"Browser tests drive {found.whose}: {found.path} ({found.version()})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
