"""The stock SageMaker SDK calls an endpoint of the rehearsal with the literal published body: JSON in by its
serializer, JSON out by its deserializer. In a process of its own, as a notebook is, since the SDK's modules
warn when they are imported.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from atelier import modelfile
from atelier.contract import keys
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.storage.s3 import Bucket, S3BlobStore
from rehearsal.crew import ProcessCrew
from rehearsal.server import RehearsalServer
from tests.integration.worker_process import tiny_checkpoint
from tests.published_requests import BODY, PAYLOAD
from tests.rehearsed import BUCKET, Account, rehearsed
from tests.waiting import eventually

NOTEBOOK = """
import json, sys
import boto3
from sagemaker.core.deserializers import JSONDeserializer
from sagemaker.core.resources import Endpoint
from sagemaker.core.serializers import JSONSerializer

body, bucket, name, region = json.loads(sys.stdin.read())
s3, session = boto3.client("s3"), boto3.Session(region_name=region)
s3.put_object(Bucket=bucket, Key="input.json", Body=JSONSerializer().serialize(body))
endpoint = Endpoint.get(name, session=session, region=region)
endpoint.wait_for_status("InService", poll=1, timeout=120)
said = endpoint.invoke_async(
    input_location=f"s3://{bucket}/input.json", content_type="application/json",
    accept="application/json", session=session, region=region,
)
print(json.dumps({"status": endpoint.endpoint_status, "output": said.output_location}), flush=True)
sys.stdin.close()
key = said.output_location.split("/", 3)[3]
s3.get_waiter("object_exists").wait(Bucket=bucket, Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 100})
answer = s3.get_object(Bucket=bucket, Key=key)
print(json.dumps(JSONDeserializer().deserialize(answer["Body"], answer["ContentType"])))
"""


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account whose instances run the real worker; its clock goes by itself."""
    crew = ProcessCrew(tmp_path / "instances", "", "us-east-1")
    server = RehearsalServer(crew.open, speed=600.0)
    crew.clock, crew.url = server.clock, server.url
    server.start()
    try:
        yield Account(server, environment={"ATELIER_STORE": f"s3://{BUCKET}", "ATELIER_ENDPOINT": "sdk"})
    finally:
        server.stop()


def published(url: str, place: Path) -> None:
    """Put the published request's checkpoint and embedding into the bucket, with a catalogue."""
    store = S3BlobStore(Bucket(BUCKET, region="us-east-1", endpoint_url=url))
    checkpoint = tiny_checkpoint(place / "tiny.safetensors", 1)
    vectors = torch.randn(2, 64, generator=torch.Generator().manual_seed(5))
    embedding = place / "easynegative.safetensors"
    save_file({"emb_params": vectors}, embedding)
    named = {"name": "v1-5-pruned", "filename": "v1-5-pruned.ckpt"}
    models: list[ModelRef] = [
        modelfile.reference(checkpoint, ModelKind.CHECKPOINT).model_copy(update=named),
        modelfile.reference(embedding, ModelKind.EMBEDDING),
    ]
    for model, path in zip(models, (checkpoint, embedding), strict=True):
        store.put(keys.model(model.blob_sha256), path)
    catalogue = Catalogue(models=tuple(models), default_checkpoint="v1-5-pruned")
    store.put(keys.catalogue("sdk"), catalogue.model_dump_json().encode())


def notebook(account: Account, body: Any, place: Path) -> list[dict[str, Any]]:
    """What the program printed, line by line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NOTEBOOK],
        input=json.dumps([body, BUCKET, "sdk", "us-east-1"]),
        env={
            "PATH": "",
            "HOME": str(place),
            "AWS_ENDPOINT_URL": account.server.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.long
def test_the_stock_sdk_carries_the_literal_published_body_there_and_back(tmp_path: Path) -> None:
    with rehearsed(speed=60.0) as account:
        account.endpoint("sdk")
        sent, answer = notebook(account, BODY, tmp_path)
    assert sent["output"].startswith(f"s3://{BUCKET}/sdk/out/")
    assert answer == BODY


@pytest.mark.long
def test_the_stock_sdk_gets_a_picture_of_the_published_body_from_the_real_worker(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    published(account.server.url, tmp_path)
    account.endpoint("sdk")
    eventually(lambda: account.status("sdk") == "InService", within=180, every=0.5, about="it never served")
    # All 39 fields as published, but for what a processor computes in a moment.
    payload = PAYLOAD | {"width": 64, "height": 64, "steps": 3}
    sent, answer = notebook(account, BODY | {"txt2img_payload": payload}, tmp_path)
    assert sent["status"] == "InService"
    [picture] = answer["images"]
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    assert image.size == (64, 64)
    assert answer["parameters"]["prompt"] == PAYLOAD["prompt"]
    assert "Sampler: Euler a" in json.loads(answer["info"])["infotexts"][0]
    (told,) = eventually(account.notices, within=30, about="nothing was told")
    assert told["invocationStatus"] == "Completed"
    assert told["responseParameters"]["outputLocation"] == sent["output"]
