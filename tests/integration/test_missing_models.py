"""Linked model files that move or go: told, refused in words, found again by their bytes, notes and all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import ModelUnusable
from atelier.contract.jobs import JobRequest
from atelier.contract.models import Catalogue, ModelKind
from portal.app import create_app
from portal.db.work import Model
from portal.services import audit
from portal.services.callers import Caller
from portal.services.model_desk import ModelChange
from portal.services.model_views import Wanted
from portal.services.models import ModelFile, catalogue
from tests.integration.test_models import CHECKPOINT_KEYS, safetensors
from tests.jobs_studio import PAYLOAD, Studio

LORA = {"lora_unet_attn2_to_k.lora_down.weight": [4, 768], "lora_unet_attn2_to_k.lora_up.weight": [8, 4]}
GONE = "is not in its folder any more: it was moved or deleted. Choose another checkpoint"


class Linked:
    """A studio with a linked folder of two checkpoints and a LoRA."""

    def __init__(self, studio: Studio, root: Path) -> None:
        self.studio, self.root = studio, root
        (root / "Stable-diffusion").mkdir(parents=True)
        (root / "Lora" / "people").mkdir(parents=True)
        self.dream = safetensors(root / "Stable-diffusion" / "dream.safetensors", CHECKPOINT_KEYS)
        self.other = safetensors(root / "Stable-diffusion" / "other.safetensors", CHECKPOINT_KEYS, salt=1)
        self.ada = safetensors(root / "Lora" / "people" / "ada.safetensors", LORA)
        studio.work.folders.remember(audit.SYSTEM, root, None)
        assert len(self.refresh()["added"]) == 3

    def refresh(self) -> dict[str, list[str]]:
        found = self.studio.work.folders.refresh(audit.SYSTEM)
        lists = {name: getattr(found, name) for name in ("added", "moved", "returned", "missing")}
        return {name: [model.filename for model in models] for name, models in lists.items()}

    def known(self) -> Catalogue:
        with self.studio.database.reading() as session:
            return catalogue(session)

    def id_of(self, name: str) -> str:
        records = self.studio.work.desk.records(Wanted(missing=True))
        return next(each.id for each in records if each.model.name == name)

    def submit(self, user: Caller, **changes: Any) -> str:
        request = JobRequest(txt2img_payload=PAYLOAD | changes)
        return self.studio.work.acceptance.accept(user, request)

    def warnings(self, user: Caller, prompt: str) -> list[str]:
        job = self.studio.view(user, self.submit(user, prompt=prompt))
        return list(job.info["atelier"]["warnings"])


@pytest.fixture
def linked(studio_url: str, tmp_path: Path) -> Iterator[Linked]:
    studio = Studio(studio_url, tmp_path)
    with studio.database.session() as session:
        session.query(Model).delete()
    yield Linked(studio, tmp_path / "models")
    studio.close()


def test_a_request_for_a_file_that_is_gone_is_refused_before_anybody_looks_again(linked: Linked) -> None:
    ann = linked.studio.user("ann")
    linked.dream.unlink()
    with pytest.raises(ModelUnusable, match=f"dream.safetensors {GONE}"):
        linked.submit(ann)
    assert linked.submit(ann, override_settings={"sd_model_checkpoint": "other"})


def test_looking_again_unlists_what_is_gone_and_lists_it_when_it_is_back(linked: Linked) -> None:
    ann, away = linked.studio.user("ann"), linked.root.parent / "away"
    away.mkdir()
    for path in (linked.dream, linked.ada):
        shutil.move(path, away / path.name)
    assert linked.refresh() == {
        "added": [],
        "moved": [],
        "returned": [],
        "missing": ["ada.safetensors", "dream.safetensors"],
    }
    assert linked.refresh()["missing"] == [], "told once"
    assert [each.name for each in linked.known().models] == ["other"]
    assert [model.name for model, _ in linked.studio.work.models.listed()] == ["other"]
    shown = linked.studio.work.desk.records(Wanted(missing=True))
    assert [each.model.name for each in shown if each.missing_since] == ["dream", "ada"]
    with pytest.raises(ModelUnusable, match=GONE):
        linked.submit(ann)
    with pytest.raises(ModelUnusable, match=GONE):
        linked.submit(ann, override_settings={"sd_model_checkpoint": "dream.safetensors"})
    other = linked.root / "Stable-diffusion" / "other.safetensors"
    assert other.is_file()
    linked.studio.work.models.make_standard(audit.SYSTEM, "other")
    [told] = linked.warnings(ann, "a cat <lora:ada:1>")
    assert told == "The file ada.safetensors was moved or deleted. The picture is made without it."
    shutil.move(away / linked.ada.name, linked.ada)
    linked.dream.write_bytes(b"another file of that name")
    assert linked.refresh()["returned"] == ["ada.safetensors"], "a file of that name alone is not the one"
    assert linked.warnings(ann, "a cat <lora:ada:1>") == []
    shutil.move(away / linked.dream.name, linked.dream)
    assert linked.refresh()["returned"] == ["dream.safetensors"]
    assert linked.submit(ann, override_settings={"sd_model_checkpoint": "dream"})
    actions = [each.action for each in linked.studio.services.trail.entries(limit=50)]
    assert (actions.count("model.missing"), actions.count("model.returned")) == (2, 2)


def test_a_moved_and_renamed_file_is_the_same_model_with_its_notes(linked: Linked) -> None:
    ann, desk = linked.studio.user("ann"), linked.studio.work.desk
    model = linked.id_of("ada")
    desk.change(audit.SYSTEM, model, ModelChange(notes={"activation_text": "ada, hat", "description": "Ada"}))
    place = linked.root / "Lora" / "friends" / "old" / "ada lovelace.safetensors"
    place.parent.mkdir(parents=True)
    shutil.move(linked.ada, place)
    assert linked.refresh() == {
        "added": [],
        "moved": ["ada lovelace.safetensors"],
        "returned": [],
        "missing": [],
    }
    record = desk.record(model)
    assert (record.model.name, record.folder) == ("ada lovelace", "friends/old")
    assert (record.notes.activation_text, record.missing_since) == ("ada, hat", None)
    assert linked.warnings(ann, "a cat <lora:ada lovelace:1>") == []
    assert linked.refresh() == {"added": [], "moved": [], "returned": [], "missing": []}


def test_a_name_given_by_hand_stays_and_a_copy_takes_the_place_of_what_went(linked: Linked) -> None:
    desk, model = linked.studio.work.desk, linked.id_of("dream")
    desk.change(audit.SYSTEM, model, ModelChange(name="Our look"))
    copy = linked.dream.with_name("copy.safetensors")
    shutil.copy(linked.dream, copy)
    assert linked.refresh()["moved"] == [], "it lies where it lay"
    linked.dream.unlink()
    assert linked.refresh()["moved"] == ["copy.safetensors"]
    record = desk.record(model)
    assert (record.model.name, record.model.filename, record.standard) == (
        "Our look",
        "copy.safetensors",
        True,
    )
    linked.studio.work.models.register(audit.SYSTEM, ModelFile(copy, ModelKind.CHECKPOINT))
    copy.unlink()
    assert linked.refresh()["missing"] == ["copy.safetensors"]
    with pytest.raises(ModelUnusable, match=GONE):
        desk.change(audit.SYSTEM, model, ModelChange(standard=True))
    upload = safetensors(linked.root.parent / "upload.safetensors", CHECKPOINT_KEYS)
    linked.studio.work.models.register(audit.SYSTEM, ModelFile(upload, ModelKind.CHECKPOINT))
    upload.unlink()
    assert linked.refresh()["missing"] == [], "a stored copy lies in no folder"
    assert desk.record(model).missing_since is None
    assert linked.submit(linked.studio.user("ann"))


def test_the_page_and_the_api_say_what_is_missing_and_the_lists_leave_it_out(linked: Linked) -> None:
    studio, password = linked.studio, "a long enough password"
    studio.services.identity.create(audit.SYSTEM, "root", password, "admin")
    linked.ada.unlink()
    origin = "http://127.0.0.1:8000"
    with TestClient(create_app(studio.services), base_url=origin, client=("127.0.0.1", 5000)) as client:
        same = {"Sec-Fetch-Site": "same-origin", "Origin": origin}
        client.post("/portal/login", data={"username": "root", "password": password}, headers=same)

        def models(query: str = "") -> httpx.Response:
            return client.get(f"/api/v1/models?kind=lora{query}")

        assert [each["missing_since"] for each in models().json()] == [None]
        page = client.post("/portal/models/refresh", headers=same)
        assert "Files that are gone are marked as missing" in page.text and "file missing" in page.text
        assert models().json() == []
        [view] = models("&missing=true").json()
        assert view["name"] == "ada" and view["missing_since"] > 0
        assert client.get("/sdapi/v1/loras", auth=("root", password)).json() == []
        assert str(linked.root) not in json.dumps(view)
        linked.dream.unlink()
        for _ in range(2):  # before and after somebody looks through the folders
            refused = client.post("/sdapi/v1/txt2img", json=PAYLOAD, auth=("root", password))
            assert refused.status_code == 422 and GONE in refused.json()["detail"]
            client.post("/portal/models/refresh", headers=same)
