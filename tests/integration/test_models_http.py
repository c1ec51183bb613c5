"""Looking after models over HTTP: upload, list, notes, previews, folders, deletion, the peer's lists."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from atelier import extension
from atelier.contract import families, keys
from atelier.contract.models import Catalogue, ModelKind
from portal.api.sdapi import networks
from portal.app import create_app
from portal.db.work import Model, Part
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.services import audit
from portal.services.models import ModelFile
from tests.integration.test_models import CHECKPOINT_KEYS, safetensors
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
LORA = {"lora_unet_attn2_to_k.lora_down.weight": [4, 768], "lora_unet_attn2_to_k.lora_up.weight": [8, 4]}
METADATA = {
    "ss_output_name": "cat_style",
    "ss_base_model_version": "sdxl_base_v1-0",
    "ss_tag_frequency": json.dumps({"10_cat": {"cat": 12, "sitting": 3}, "5_more": {"cat": 2}}),
}


GOLDEN_NETWORKS = ("lora_a", "locon_b", "loha_c", "lokr_d", "dora_e")


def network(path: Path, metadata: dict[str, str] | None = None, salt: int = 0) -> Path:
    """A LoRA's file with metadata in its header."""
    plain = safetensors(path, LORA, salt).read_bytes()
    size = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": METADATA if metadata is None else metadata} | json.loads(plain[8 : 8 + size])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + plain[8 + size :])
    return path


def picture(form: str = "PNG", size: tuple[int, int] = (900, 600)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, form)
    return out.getvalue()


class People:
    """ann, a designer, and root, an administrator, before one portal."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.studio, self.client = studio, client
        self.headers = {}
        for name, role in (("ann", "designer"), ("root", "admin")):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
            answer = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
            self.headers[name] = {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def __call__(self, name: str, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, f"/api/v1/models{path}", headers=self.headers[name], **options)

    def upload(self, path: Path, who: str = "root", **query: str) -> httpx.Response:
        query = {"kind": "lora", "filename": path.name, **query}
        return self(who, "POST", "/upload", params=query, content=path.read_bytes())

    def actions(self) -> list[str]:
        found = self.studio.services.trail.entries(limit=50)
        return [each.action for each in found if each.action.startswith("model.")]


@pytest.fixture
def people(studio_url: str, tmp_path: Path) -> Iterator[People]:
    studio = Studio(studio_url, tmp_path)
    with studio.database.session() as session:
        session.query(Model).delete()
    with TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000)) as client:
        yield People(studio, client)
    studio.close()


def test_an_uploaded_network_is_listed_with_what_its_file_says(people: People, tmp_path: Path) -> None:
    path = network(tmp_path / "cat.safetensors")
    content = path.read_bytes()
    made = people.upload(path, sha256=hashlib.sha256(content).hexdigest(), folder="animals/cats")
    assert made.status_code == 201, made.text
    view = made.json()
    assert (view["name"], view["alias"], view["prompt_name"]) == ("cat", "cat_style", "cat_style")
    assert (view["family"], view["folder"]) == ("sdxl", "animals/cats")
    offset = 8 + int.from_bytes(content[:8], "little")
    assert view["addnet_hash"] == hashlib.sha256(content[offset:]).hexdigest()
    assert people.studio.store.get(keys.model(view["sha256"])) == content
    assert list((tmp_path / "uploads").iterdir()) == []
    known = people("ann", "GET", f"/{view['id']}").json()
    assert known["metadata"] == METADATA
    assert known["suggested_words"] == [{"word": "cat", "count": 14}, {"word": "sitting", "count": 3}]
    for query, found in (
        ("?kind=lora", 1), ("?kind=vae", 0), ("?family=sdxl", 1), ("?family=sd1", 0),
        ("?search=CAT style", 1), ("?search=dog", 0), ("?folder=animals", 1), ("?folder=anim", 0),
    ):  # fmt: skip
        assert len(people("ann", "GET", query).json()) == found, query
    second = people.upload(network(tmp_path / "other.safetensors", salt=3)).json()
    assert second["prompt_name"] == "other", "two files of one alias go by their own names"
    assert people.actions() == ["model.register"] * 2


def test_what_cannot_be_taken_in_is_refused_with_the_reason_and_leaves_nothing(
    people: People, tmp_path: Path
) -> None:
    path = network(tmp_path / "cat.safetensors")
    assert people.upload(path, who="ann").status_code == 403
    refusals = [
        (people.upload(path, filename="cat.zip"), 422, "no model file"),
        (people.upload(path, filename="../cat.safetensors"), 422, "no path"),
        (people.upload(path, folder="../up"), 422, "folder"),
        (people.upload(path, sha256="0" * 64), 422, "arrived changed"),
        (people.upload(path, kind="checkpoint"), 422, "it is a LoRA"),
    ]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-4])
    refusals.append((people.upload(cut), 422, "cut.safetensors"))
    assert people.upload(path).status_code == 201
    refusals.append((people.upload(network(tmp_path / "x.safetensors", salt=1), name="cat"), 409, "already"))
    people.studio.work.uploads.limit = 10
    refusals.append((people.upload(network(tmp_path / "big.safetensors", salt=2)), 413, "ATELIER_MAX_MODEL"))
    for answer, status, said in refusals:
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]
    assert len(people("ann", "GET", "").json()) == 1
    assert list((tmp_path / "uploads").iterdir()) == []


def test_notes_names_and_the_family_are_an_administrators_to_change(people: People, tmp_path: Path) -> None:
    checkpoint = safetensors(tmp_path / "dream.safetensors", CHECKPOINT_KEYS)
    first = people.upload(checkpoint, kind="checkpoint").json()
    model = people.upload(network(tmp_path / "cat.safetensors")).json()
    place = f"/{model['id']}"
    assert people("ann", "PATCH", place, json={"name": "x"}).status_code == 403
    wanted = {"description": "A cat.", "activation_text": "cat, sitting", "preferred_weight": 0.7}
    changed = people("root", "PATCH", place, json={"name": "kitty", **wanted}).json()
    assert changed.items() >= {"name": "kitty", **wanted}.items()
    kept = people("root", "PATCH", place, json={"negative_text": "dog", "description": ""}).json()
    assert (kept["activation_text"], kept["negative_text"], kept["description"]) == (
        "cat, sitting",
        "dog",
        "",
    )
    overridden = people("root", "PATCH", place, json={"family_override": "sd1"}).json()
    assert (overridden["family"], overridden["detected_family"]) == ("sd1", "sdxl")
    found = people.studio.work.models.listed(ModelKind.LORA)[0][0]
    assert found.family == "sd1"
    assert people("root", "PATCH", place, json={"family_override": ""}).json()["family"] == "sdxl"
    for body, status in (
        ({"family_override": "sd9"}, 422), ({"standard": True}, 422), ({"name": " "}, 422),
        ({"preferred_weight": 99}, 422), ({"colour": "red"}, 422),
    ):  # fmt: skip
        assert people("root", "PATCH", place, json=body).status_code == status, body
    checkpoints = f"/{first['id']}"
    assert people("ann", "GET", checkpoints).json()["families"] == ["sd1", "sd1-v"]
    assert people("ann", "GET", place).json()["families"] == list(families.BASES)
    contrary = people("root", "PATCH", checkpoints, json={"family_override": "sd2-inpaint"})
    assert contrary.status_code == 422
    assert "its tensors are those of sd1. It may be sd1 or sd1-v" in contrary.json()["error"]["message"]
    assert people("root", "PATCH", checkpoints, json={"family_override": "sd1-v"}).json()["family"] == "sd1-v"
    other = people.upload(network(tmp_path / "dog.safetensors", {}, salt=1)).json()
    assert people("root", "PATCH", f"/{other['id']}", json={"name": "kitty"}).status_code == 409
    assert people("root", "PATCH", "/nothing", json={"name": "x"}).status_code == 404
    second = people.upload(
        safetensors(tmp_path / "sea.safetensors", CHECKPOINT_KEYS, salt=1), kind="checkpoint"
    ).json()
    assert people("root", "PATCH", f"/{second['id']}", json={"standard": True}).json()["standard"]
    assert not people("ann", "GET", f"/{first['id']}").json()["standard"]
    assert people.actions().count("model.change") == 6


def test_a_checkpoints_preferred_vae_is_kept_checked_and_published(people: People, tmp_path: Path) -> None:
    (tmp_path / "dream.json").write_text(json.dumps({"vae": "soft.safetensors", "notes": "n"}))
    people.studio.work.models.register(
        audit.SYSTEM,
        ModelFile(safetensors(tmp_path / "dream.safetensors", CHECKPOINT_KEYS), ModelKind.CHECKPOINT),
    )
    [dream] = people("ann", "GET", "?kind=checkpoint").json()
    assert (dream["vae"], dream["notes"]) == ("soft.safetensors", "n")
    vae = {"decoder.conv_in.weight": [4, 4], "encoder.conv_in.weight": [4, 3]}
    soft = people.upload(safetensors(tmp_path / "soft.safetensors", vae), kind="vae").json()
    place = f"/{dream['id']}"
    for given, kept in (("soft", "soft.safetensors"), ("None", "None"), ("Automatic", "")):
        assert people("root", "PATCH", place, json={"vae": given}).json()["vae"] == kept
    refused = people("root", "PATCH", place, json={"vae": "sofd.pt"})
    assert refused.status_code == 422 and "'soft.safetensors'" in refused.json()["error"]["message"]
    assert people("root", "PATCH", f"/{soft['id']}", json={"vae": "soft"}).status_code == 422
    assert people("ann", "PATCH", place, json={"vae": "None"}).status_code == 403
    login = {"username": "root", "password": PASSWORD}
    same = {"Sec-Fetch-Site": "same-origin"}
    people.client.post("/portal/login", data=login, headers=same, follow_redirects=False)
    form = {"name": dream["name"], "vae": "soft.safetensors"}
    place = f"/portal/models/{dream['id']}"
    assert people.client.post(place, data=form, headers=same, follow_redirects=False).status_code == 303
    page = people.client.get("/portal/models?kind=checkpoint").text
    assert "<option selected>soft.safetensors</option>" in page.split('name="vae"')[1].split("</select>")[0]
    people.studio.work.models.publish("local")
    published = Catalogue.model_validate_json(people.studio.store.get(keys.catalogue("local")))
    assert published.preferred_vaes == {dream["sha256"]: "soft.safetensors"}


def test_a_preview_is_encoded_anew_and_comes_from_a_file_or_ones_own_picture(
    people: People, tmp_path: Path
) -> None:
    model = people.upload(network(tmp_path / "cat.safetensors")).json()
    place = f"/{model['id']}/preview"
    assert people("ann", "GET", place).status_code == 404
    assert people("ann", "PUT", place, content=picture()).status_code == 403
    for content, status in ((b"<svg onload=alert(1)>", 422), (b"", 422), (b"x" * (20 * 2**20 + 1), 413)):
        assert people("root", "PUT", place, content=content).status_code == status
    url = people("root", "PUT", place, content=picture("JPEG")).json()["preview_url"]
    answer = people.client.get(url, headers=people.headers["ann"])
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["x-content-type-options"] == "nosniff"
    with Image.open(io.BytesIO(answer.content)) as shown:
        assert (shown.format, shown.size) == ("WEBP", (768, 512))
    again = people.client.get(url, headers=people.headers["ann"] | {"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    thumb = people.client.get(
        f"/sd_extra_networks/thumb?filename={model['id']}", headers=people.headers["ann"]
    )
    assert thumb.content == answer.content
    assert people("root", "PUT", f"{place}?picture=nobodys").status_code == 404
    assert people("root", "DELETE", place).status_code == 204
    assert people("ann", "GET", place).status_code == 404
    assert list(people.studio.store.list("previews/")) == []


def test_a_deleted_models_file_stays_until_no_unfinished_part_needs_it(
    people: People, tmp_path: Path
) -> None:
    studio = people.studio
    first = people.upload(safetensors(tmp_path / "a.safetensors", CHECKPOINT_KEYS), kind="checkpoint").json()
    people.upload(safetensors(tmp_path / "b.safetensors", CHECKPOINT_KEYS, salt=1), kind="checkpoint")
    job = studio.submit(studio.user("zoe"))
    assert people("ann", "DELETE", f"/{first['id']}").status_code == 403
    refused = people("root", "DELETE", f"/{first['id']}")
    assert (refused.status_code, "standard" in refused.json()["error"]["message"]) == (409, True)
    studio.work.models.make_standard(audit.SYSTEM, "b")
    assert people("root", "DELETE", f"/{first['id']}").status_code == 204
    blob = keys.model(first["sha256"])
    assert studio.store.stat(blob) is not None
    assert [each["name"] for each in people("ann", "GET", "").json()] == ["b"]
    assert studio.work.desk.sweep() == 0
    with studio.database.session() as session:
        session.query(Part).filter(Part.job_id == job).update({"state": "succeeded"})
    assert studio.work.desk.sweep() == 1
    assert studio.store.stat(blob) is None
    again = people.upload(tmp_path / "a.safetensors", kind="checkpoint")
    assert (again.status_code, studio.store.stat(blob) is not None) == (201, True)


def test_new_files_of_a_linked_folder_come_with_the_peers_files_beside_them(
    people: People, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    folder = root / "Lora" / "people"
    folder.mkdir(parents=True)
    studio = people.studio
    studio.work.folders.remember(audit.SYSTEM, root, None)
    nothing: dict[str, Any] = {name: [] for name in ("added", "moved", "returned", "missing")}
    assert people("ann", "POST", "/refresh").json() == nothing | {"refused": {}}
    path = network(folder / "ada.safetensors", {})
    told = {
        "description": "Ada",
        "activation text": "ada, hat",
        "preferred weight": 0.8,
        "negative text": "bald",
    }
    path.with_suffix(".json").write_text(json.dumps(told | {"sd version": "SD1"}))
    path.with_suffix(".preview.png").write_bytes(picture(size=(64, 64)))
    (folder / "broken.safetensors").write_bytes(b"no header here")
    assert people.client.post("/sdapi/v1/refresh-vae", auth=("ann", PASSWORD)).json() is None
    assert people("ann", "GET", "").json() == []
    assert people.client.post("/sdapi/v1/refresh-loras", auth=("ann", PASSWORD)).json() is None
    [view] = people("ann", "GET", "").json()
    assert (view["folder"], view["activation_text"], view["preferred_weight"]) == ("people", "ada, hat", 0.8)
    assert (view["description"], view["negative_text"], view["sd_version"]) == ("Ada", "bald", "SD1")
    assert view["family"] == "sd1", "the shapes of its weights say so"
    assert people("ann", "GET", f"/{view['id']}/preview").status_code == 200
    again = people("ann", "POST", "/refresh").json()
    assert (again["added"], list(again["refused"])) == ([], ["broken.safetensors"])
    assert str(tmp_path) not in json.dumps([view, again])


def test_the_peers_clients_get_its_lists(people: People, golden: Path) -> None:
    studio, models = people.studio, golden / "models"
    for kind, names in (
        (ModelKind.CHECKPOINT, ("oracle.safetensors", "oracle_b.safetensors")),
        (ModelKind.VAE, ("alt_vae.safetensors",)),
        (ModelKind.LORA, tuple(f"{name}.safetensors" for name in GOLDEN_NETWORKS)),
        (ModelKind.EMBEDDING, ("tiny-ti.pt", "tiny-ti2.safetensors")),
        (ModelKind.HYPERNETWORK, ("tiny-hn.pt",)),
    ):
        for name in names:
            linked = name.endswith(".safetensors")
            studio.work.models.register(audit.SYSTEM, ModelFile(models / name, kind, link=linked))

    def listed(name: str) -> Any:
        return people.client.get(f"/sdapi/v1/{name}", auth=("ann", PASSWORD)).json()

    def recorded(name: str) -> Any:
        return json.loads((golden / "lists" / f"{name}.json").read_text())

    for name in ("sd-models", "sd-vae", "loras", "embeddings", "hypernetworks"):
        assert listed(name) == recorded(name), name
    ann = people.headers["ann"]
    told = people.client.get("/sd_extra_networks/metadata?page=lora&item=lora_a", headers=ann).json()
    assert json.loads(told["metadata"]) == next(
        each["metadata"] for each in recorded("loras") if each["name"] == "lora_a"
    )
    query = "/sd_extra_networks/get-single-card?page=lora&tabname=txt2img&name=lora_a"
    card = people.client.get(query, headers=ann).json()["html"]
    assert 'data-name="lora_a"' in card
    assert str(golden) not in card
    assert (
        people.client.get("/sd_extra_networks/get-single-card?page=lora&name=no", headers=ann).status_code
        == 404
    )
    assert people.client.get("/sd_extra_networks/metadata").status_code == 401


def test_the_portals_page_shows_models_to_all_and_changes_them_for_administrators(
    people: People, tmp_path: Path
) -> None:
    client, same = people.client, {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}
    model = people.upload(network(tmp_path / "cat.safetensors")).json()
    place = f"/portal/models/{model['id']}"

    def log_in(name: str) -> None:
        client.cookies.clear()
        form = {"username": name, "password": PASSWORD, "next": "/"}
        client.post("/portal/login", data=form, headers=same, follow_redirects=False)

    def send(path: str, **body: Any) -> httpx.Response:
        return client.post(place + path, headers=same, **body)

    log_in("ann")
    seen = client.get("/portal/models?kind=lora&search=cat").text
    assert "cat_style" in seen
    assert "Add a model" not in seen
    assert send("/delete").status_code == 403
    log_in("root")
    fields = {"name": "kitty", "activation_text": "<b>cat</b>", "family_override": "sd1"}
    changed = send("", data=fields)
    assert "The model was changed." in changed.text
    assert "&lt;b&gt;cat&lt;/b&gt;" in changed.text
    assert "set by hand" in changed.text
    assert "replaced" in send("/preview", files={"picture": ("x.png", picture(), "image/png")}).text
    refusals = (
        (send("/preview", files={"picture": ("x.png", b"text", "image/png")}), "no picture"),
        (send("", data=fields | {"preferred_weight": "much"}), "a number"),
        (send("/standard"), "Only a checkpoint"),
    )
    for answer, said in refusals:
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
    assert "was deleted" in send("/delete").text
    assert people("ann", "GET", "").json() == []


def test_the_peers_pages_of_cards_are_our_own_and_those_of_extensions(tmp_path: Path) -> None:
    peers = {
        "textual inversion": ModelKind.EMBEDDING,
        "hypernetworks": ModelKind.HYPERNETWORK,
        "checkpoints": ModelKind.CHECKPOINT,
        "lora": ModelKind.LORA,
    }
    assert networks.pages(extension.installed("ui")) == peers
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "extension.toml").write_text(
        'name = "shelf"\nversion = "1"\ncontract = "1.0"\nparts = ["ui"]\n'
    )
    page = {"type": "cards", "title": "Control Nets", "kind": "controlnet", "tag": "{name}"}
    (folder / "ui.py").write_text(
        f"from atelier.extension import hookimpl\n\n\n@hookimpl\ndef controls(tab):\n    return [{page}]\n"
    )
    found = networks.pages(extension.load("ui", tmp_path))
    assert set(found) == {"textual inversion", "checkpoints", "control nets"}
    assert found["control nets"] is ModelKind.CONTROLNET


def test_a_refresh_tells_nobody_of_files_that_are_closed_to_them(people: People, tmp_path: Path) -> None:
    root = tmp_path / "models"
    lora = root / "Lora"
    lora.mkdir(parents=True)
    for number, name in enumerate(("open", "closed")):
        network(lora / f"{name}.safetensors", salt=number)
    services = people.studio.services
    services.work.folders.remember(audit.SYSTEM, root, None)
    assert len(people("root", "POST", "/refresh").json()["added"]) == 2
    closed = next(each["id"] for each in people("root", "GET", "").json() if each["name"] == "closed")
    services.access.put(audit.SYSTEM, ObjectKind.MODEL, closed, SubjectKind.EVERYBODY, "*", Effect.DENY)
    for path in lora.iterdir():
        path.rename(path.with_name(f"moved-{path.name}"))
    for what in ("moved", "missing", "returned"):
        told = people("ann", "POST", "/refresh").json()
        assert [title.split(".")[0] for title in told[what]] == ["moved-open"], told
        assert "closed" not in str(told)
        if what == "moved":
            kept = tmp_path / "kept"
            lora.rename(kept)
        elif what == "missing":
            kept.rename(lora)
