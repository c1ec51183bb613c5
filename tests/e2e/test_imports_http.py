"""A model that is imported while an endpoint runs: chosen there at once, by the same worker."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from atelier.contract import keys
from tests.live_portal import LivePortal
from tests.sites import Site
from tests.waiting import eventually


@pytest.fixture(scope="module")
def weights(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint that nobody has yet."""
    loaded = load_file(checkpoints[0])
    name = "model.diffusion_model.out.2.weight"
    loaded[name] = loaded[name] / 3
    path = tmp_path_factory.mktemp("published") / "published.safetensors"
    save_file(loaded, path)
    return path.read_bytes()


def test_a_model_that_comes_in_is_drawn_with_by_the_worker_that_runs(
    live: LivePortal, weights: bytes
) -> None:
    site = Site()
    root, digest = live.person("root"), hashlib.sha256(weights).hexdigest()
    before = [worker["instance"] for worker in live.services.work.endpoints.get("local").workers]
    body = {"source": site.put("/published.safetensors", weights), "sha256": digest}
    asked = root.post("/api/v1/models/imports", json=body).json()

    def ended() -> dict[str, object] | None:
        view = root.get(f"/api/v1/models/imports/{asked['id']}").json()
        return view if view["state"] in ("succeeded", "failed") else None

    done = eventually(ended, within=180)
    assert done is not None and done["state"] == "succeeded", done
    ann = live.person("ann")
    assert done["model"] in [each["title"] for each in ann.get("/api/v1/models").json()]
    published = json.loads(live.services.store.get(keys.catalogue("local")))
    assert digest in [each["sha256"] for each in published["models"]]
    settings = {"override_settings": {"sd_model_checkpoint": "published"}}
    view = live.finished(ann, live.submit(ann, **settings))
    assert view.state.value == "succeeded" and view.pictures
    assert f"Model hash: {digest[:10]}" in str(view.info)
    workers = [worker["instance"] for worker in live.services.work.endpoints.get("local").workers]
    assert before == [] or workers == before, "no worker was started for it"
    site.close()
    [record] = [each for each in root.get("/api/v1/models").json() if each["sha256"] == digest]
    assert root.delete(f"/api/v1/models/{record['id']}").status_code == 204
    assert done["model"] not in [each["title"] for each in ann.get("/api/v1/models").json()]
