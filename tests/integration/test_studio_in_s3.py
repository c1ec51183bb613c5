"""A studio whose blobs lie in a bucket: jobs, files, models, the sweep and what the command line does with
them.
"""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.client import collect
from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, StorageFailed
from atelier.contract.models import ModelKind
from atelier.storage.s3 import Bucket, S3BlobStore
from portal import cli
from portal.app import create_app
from portal.services import audit, files
from portal.services.model_uploads import Announced, Uploads
from portal.services.models import ModelFile
from tests.jobs_studio import PASSWORD, Studio
from tests.moto_aws import Aws


@pytest.fixture
def studio(aws: Aws, data_dir: Path) -> Iterator[Studio]:
    bucket = Bucket("studio", f"{uuid.uuid4().hex}/", endpoint_url=aws.url)
    made = Studio(f"sqlite:///{data_dir / 'atelier.db'}", data_dir, store=S3BlobStore(bucket, aws.session))
    for name in ("ann", "bob"):
        made.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
    yield made
    made.close()


def client(studio: Studio, name: str) -> TestClient:
    access = studio.services.identity.log_in(name, PASSWORD, audit.Origin(ip="127.0.0.1"))[1].access
    headers = {"Authorization": f"Bearer {access}", "Sec-Fetch-Site": "same-origin"}
    return TestClient(
        create_app(studio.services), base_url="http://127.0.0.1:8000", headers=headers, follow_redirects=False
    )


def finished(studio: Studio, browser: TestClient) -> str:
    """The id of a job whose part has succeeded."""
    body = {"txt2img_payload": {"prompt": "a red circle", "steps": 4, "width": 64, "height": 64}}
    job = str(browser.post("/api/v1/jobs", json=body).json()["id"])
    for submission in studio.turn():
        studio.fleet.succeed(submission)
    studio.turn()
    return job


def test_a_picture_is_streamed_and_a_large_one_is_saved_from_the_bucket_by_its_owner_alone(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = client(studio, "ann")
    picture = browser.get(f"/api/v1/jobs/{finished(studio, browser)}").json()["pictures"][0]
    shown = browser.get(picture["url"])
    assert shown.status_code == 200
    assert shown.content == browser.get(picture["download_url"]).content
    monkeypatch.setattr(files, "LARGE", 1)
    assert browser.get(picture["url"]).content == shown.content
    saved = browser.get(picture["download_url"])
    assert (saved.status_code, saved.headers["cache-control"]) == (307, "no-store")
    there = httpx.get(saved.headers["location"])
    assert there.content == shown.content
    assert there.headers["content-type"] == shown.headers["content-type"]
    assert there.headers["content-disposition"].startswith("attachment; filename=")
    assert client(studio, "bob").get(picture["download_url"]).status_code == 404


def test_the_sweep_removes_what_nobody_will_see_and_keeps_pictures(studio: Studio) -> None:
    browser = client(studio, "ann")
    job = finished(studio, browser)
    studio.store.put("jobs/gone/part/1/0.png", b"nobody's")
    studio.clock.advance(10 * 365 * 86_400)
    swept = studio.work.orphans.sweep(audit.SYSTEM)
    assert swept.refused == ""
    assert studio.store.stat("jobs/gone/part/1/0.png") is None
    assert [each.key for each in studio.store.list(f"jobs/{job}/") if each.key.endswith(".png")]


def test_an_upload_needs_room_on_the_portals_disk_for_itself_alone(
    studio: Studio, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10 * 2**30
    usage = type("Usage", (), {"free": free, "total": free, "used": 0})
    monkeypatch.setattr("portal.services.model_uploads.shutil.disk_usage", lambda _: usage)
    announced = Announced("large.safetensors", ModelKind.CHECKPOINT, size=6 * 2**30)
    elsewhere = Uploads(studio.database, studio.work.models, data_dir, 2**40, stored_here=False)
    elsewhere.expect(announced)
    with pytest.raises(StorageFailed, match=r"no room for large\.safetensors"):
        Uploads(studio.database, studio.work.models, data_dir, 2**40).expect(announced)
    with pytest.raises(StorageFailed, match="no room"):
        elsewhere.expect(replace(announced, size=free))


def test_a_model_is_stored_once_published_packed_and_never_linked(
    studio: Studio, aws: Aws, data_dir: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = repository / "models" / "atelier-demo.safetensors"
    with pytest.raises(InvalidRequest, match="cannot link"):
        studio.work.models.register(audit.SYSTEM, ModelFile(demo, ModelKind.CHECKPOINT, link=True))
    model = studio.work.models.register(audit.SYSTEM, ModelFile(demo, ModelKind.CHECKPOINT))
    assert studio.store.stat(keys.model(model.blob_sha256)).size == demo.stat().st_size
    published = json.loads(studio.store.get(keys.catalogue("local")))
    assert model.sha256 in {each["sha256"] for each in published["models"]}
    monkeypatch.setenv("ATELIER_DATA_DIR", str(data_dir))
    place = studio.store.bucket.prefix.strip("/")
    monkeypatch.setenv("ATELIER_STORE_URL", f"s3://studio/{place}?endpoint_url={aws.url}")
    guides = f"s3://studio/{place}/guides?endpoint_url={aws.url}"
    assert cli.main(["model", "pack", model.name, "--output", guides]) == 0
    packed = studio.store.get(f"guides/{keys.archive(model.name)}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.extractfile(f"{model.name}.safetensors")
        assert member is not None
        assert member.read() == demo.read_bytes()


def test_the_answer_to_a_program_lies_in_the_bucket_where_it_was_told_to_be(studio: Studio, aws: Aws) -> None:
    program, bucket = client(studio, "ann"), aws.session.client("s3", endpoint_url=aws.url)

    def read(location: str) -> bytes:
        assert location.startswith("s3://studio/")
        told = bucket.get_object(Bucket="studio", Key=location.removeprefix("s3://studio/"))
        return bytes(told["Body"].read())

    body = {"prompt": "a red circle", "num_images_per_prompt": 2}
    places = {}
    for output in ("base64", "s3"):
        answer = program.post("/inference?endpoint_name=local", json=body | {"output": output})
        assert answer.status_code == 202, answer.text
        places[output] = answer.json()["output_location"]
    text = program.post("/inference?endpoint_name=local", json=body, headers={"Accept": "text/plain"})
    for submission in studio.turn():
        studio.fleet.succeed(submission)
    studio.turn()
    pictures = json.loads(read(places["base64"]))["generated_images"]
    stored = [read(each) for each in json.loads(read(places["s3"]))["s3_loc"]]
    assert [len(pictures), len(stored)] == [2, 2]
    assert all(stored) and list(json.loads(read(text.text))) == ["generated_images"]
    found = collect({"OutputLocation": places["s3"]}, fetch=read)
    assert found.pictures == tuple(stored)
