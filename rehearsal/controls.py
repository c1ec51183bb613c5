"""The rehearsal's own small API: the clock, the faults, and how everything is.

GET /_rehearsal/state and settings; POST /_rehearsal/faults and /_rehearsal/advance with a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from rehearsal.simulation import Simulation

LAST_ACTIVITIES = 50


class Controls:
    """A WSGI application beside the simulated services."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.settings: dict[str, str] | None = None
        """The studio's variables for this account, once they are known."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        status, said = self._answer(environ)
        data = json.dumps(said).encode()
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
        return [data]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        what = environ["PATH_INFO"].removeprefix("/_rehearsal/")
        asks = (environ["REQUEST_METHOD"], what)
        try:
            if asks == ("GET", "state"):
                return "200 OK", self.state()
            if asks == ("GET", "settings"):
                if self.settings is None:
                    return "503 Service Unavailable", {"error": "The account is still being set up."}
                return "200 OK", dict(self.settings)
            if asks == ("POST", "faults"):
                with self._simulation.clock.lock:
                    self._simulation.chance.set(_object(environ))
                return "200 OK", self.state()
            if asks == ("POST", "advance"):
                self._simulation.clock.advance(float(_object(environ)["seconds"]))
                return "200 OK", self.state()
            if asks == ("POST", "crash"):
                return "200 OK", {"crashed": self._crash(str(_object(environ)["endpoint"]))}
        except (ValueError, KeyError, TypeError) as error:
            return "400 Bad Request", {"error": f"This cannot be done: {error}"}
        return "404 Not Found", {
            "error": "Under /_rehearsal/ there are GET state and settings, POST faults, advance and crash."
        }

    def state(self) -> dict[str, Any]:
        """The time, the faults, the endpoints and the last activities."""
        simulation = self._simulation
        with simulation.clock.lock:
            return {
                "now": simulation.clock.now(),
                "computing": simulation.clock.held,
                "to_serve": simulation.durations.to_serve,
                "faults": simulation.chance.told(),
                "endpoints": {
                    name: {
                        "status": each.status,
                        "reason": each.reason,
                        "wanted": each.wanted,
                        "serving": each.serving,
                        "waiting": len(each.waiting),
                        "busy": each.busy,
                        "instances": {it.name: it.stage.value for it in each.instances},
                    }
                    for name, each in simulation.endpoints.items()
                },
                "activities": [asdict(each) for each in simulation.activities[-LAST_ACTIVITIES:]],
            }

    def _crash(self, endpoint: str) -> str:
        """Kill the worker of an endpoint's busiest instance; its name, empty where none runs."""
        with self._simulation.clock.lock:
            running = [each for each in self._simulation.endpoints[endpoint].instances if each.runs]
            if not running:
                return ""
            victim = max(running, key=lambda each: each.busy)
            victim.crash()
            return victim.name


def _object(environ: dict[str, Any]) -> dict[str, Any]:
    said = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
    if not isinstance(said, dict):
        raise ValueError("the body is no JSON object")
    return said
