"""An endpoint that grows and shrinks with real workers: over HTTP, from one to two, to zero and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.live_portal import SMALL, LivePortal
from tests.waiting import eventually

pytestmark = pytest.mark.long

SLOW = {**SMALL, "steps": 150, "width": 192, "height": 192}


@pytest.fixture
def live(data_dir: Path, checkpoints: list[Path]) -> Iterator[LivePortal]:
    portal = LivePortal(data_dir, checkpoints[:1])
    portal.start()
    yield portal
    portal.stop()


def workers(live: LivePortal) -> list[psutil.Process]:
    """This portal's: another test's may live beside them."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
            ours = child.environ().get("ATELIER_STORE") == live.services.settings.store
            found += [child] if ours and "inference.server" in " ".join(child.cmdline()) else []
    return found


def told(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/api/v1/endpoints/local").json())


def test_an_endpoint_follows_its_demand_and_a_click_reaches_the_worker_that_has_the_job(
    live: LivePortal,
) -> None:
    root, ann, bob = live.person("root"), live.person("ann"), live.person("bob")
    numbers = {"max_instances": 2, "slots": 1, "idle_seconds": 5, "price_hour": 3.6}
    assert root.patch("/api/v1/endpoints/local", json=numbers).status_code == 200
    first, second = live.submit(ann, **SLOW), live.submit(bob, **SLOW)
    for client, job in ((ann, first), (bob, second)):
        eventually(lambda c=client, j=job: live.finished_or_at(c, j, "steps"), within=300)
    assert (told(root)["instances"], len(workers(live))) == (2, 2)
    ann.post(f"/api/v1/jobs/{first}/actions", json={"action": "stop_now"}).raise_for_status()
    assert live.finished(ann, first).state == "stopped"
    view = live.finished(bob, second, within=300)
    assert (view.state, len(view.pictures)) == ("succeeded", 1), "the other worker was left alone"
    eventually(lambda: told(root)["instances"] == 1 and len(workers(live)) == 1, within=120)
    root.patch("/api/v1/endpoints/local", json={"min_instances": 0}).raise_for_status()
    eventually(lambda: told(root)["condition"] == "off" and not workers(live), within=120)
    woken = live.finished(ann, live.submit(ann), within=300)
    assert (woken.state, len(woken.pictures)) == ("succeeded", 1)
    assert "waking" in woken.timeline and len(workers(live)) == 1
    assert live.services.costs.read().today > 0
