"""One live portal with one worker for all end-to-end tests of a session: starting a worker takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_portal import LivePortal


@pytest.fixture(scope="session")
def live(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePortal]:
    """A portal over HTTP with a worker in service."""
    portal = LivePortal(tmp_path_factory.mktemp("live"), checkpoints)
    try:
        portal.start()
        yield portal
    finally:
        portal.stop()
