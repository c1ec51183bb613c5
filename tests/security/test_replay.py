"""What one user may do with their own things, sent again by another: it is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from portal.app import create_app
from portal.services import audit
from portal.services.callers import Caller
from portal.services.permissions import DESIGNER, ROLES
from tests.integration.test_grids import XYZ, made
from tests.jobs_studio import Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD, every_step

BODIES: dict[str, Any] = {
    "POST /api/v1/jobs/{job_id}/actions": {"action": "cancel"},
    "PATCH /api/v1/jobs/{job_id}": {"priority": 1},
}


def test_what_succeeds_for_the_owner_is_not_there_for_somebody_else(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path)
    app = create_app(studio.services)
    ids = {
        name: studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer").id
        for name in ("ann", "bob")
    }
    job = made(studio, Caller(ids["ann"], "ann", (DESIGNER,), ROLES[DESIGNER]), **XYZ)
    headers: dict[str, dict[str, str]] = {}
    with TestClient(app, base_url=ORIGIN, client=("127.0.0.1", 5000)) as client:
        for name in ids:
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
            headers[name] = {"Authorization": f"Bearer {login['access_token']}"}
        ann = {"headers": headers["ann"]}
        view = client.get(f"/api/v1/jobs/{job}", **ann).json()
        key = client.post("/api/v1/me/keys", json={"name": "mine"}, **ann).json()["id"]
        client.put("/api/v1/styles/mine", json={"prompt": "soft"}, **ann)
        pictures = re.findall(r"/files/([\w-]+)", str(view))
        assert len(set(pictures)) >= 7, "six pictures and their grid"
        owned = {"job_id": [job], "picture_id": pictures, "key_id": [key], "name:path": ["mine"]}
        calls = [
            (step.method, re.sub(r"{[^}]+}", each, step.path), BODIES.get(step.name))
            for step in every_step(app.routes)
            if step.method in ("GET", "POST", "PATCH", "DELETE")
            for name in re.findall(r"{([^}]+)}", step.path)[:1]
            if step.path.count("{") == 1
            for each in owned.get(name, ())
        ]
        shown = ("/api/v1/jobs", "/api/v1/me/keys", "/api/v1/styles", f"/api/v1/jobs/{job}")
        before = [client.get(path, **ann).json() for path in shown]
        for method, path, body in calls:
            answer = client.request(method, path, json=body, headers=headers["bob"])
            assert answer.status_code == 404, (method, path, answer.status_code)
        assert [client.get(path, **ann).json() for path in shown] == before
        for method, path, body in calls:
            answer = client.request(method, path, json=body, **ann)
            assert answer.status_code < 300, (method, path, answer.text)
        assert len(calls) >= 8
    studio.close()
