"""What a store in S3 does beyond every store's contract: parts, signed URLs, keys, tries and readable
refusals.
"""

from __future__ import annotations

import http.server
import io
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from atelier.contract.errors import InvalidRequest, NotFound, StorageFailed
from atelier.storage import s3
from atelier.storage.base import ReadsRanges, TakesUploads
from atelier.storage.opening import open_store, with_options
from atelier.storage.s3 import Bucket, S3BlobStore
from atelier.storage.s3_failures import readable
from portal.settings import load
from tests.moto_aws import Aws

MIB = 2**20


@pytest.fixture
def store(aws: Aws) -> S3BlobStore:
    return S3BlobStore(Bucket("studio", f"{uuid.uuid4().hex}/", endpoint_url=aws.url), aws.session)


def test_a_url_of_the_settings_names_bucket_prefix_region_address_and_key(aws: Aws) -> None:
    store = open_store("s3://studio/a/b/?region=eu-central-1&kms_key=arn:aws:kms:eu-central-1:1:key/2")
    assert isinstance(store, S3BlobStore)
    assert store.bucket == Bucket(
        "studio", "a/b/", region="eu-central-1", kms_key="arn:aws:kms:eu-central-1:1:key/2"
    )
    assert isinstance(store, TakesUploads)
    assert isinstance(store, ReadsRanges)
    for wrong in ("s3://", "s3://UPPER/a", "s3://studio/../a", "s3://studio/a?color=red", "s3://studio/a#b"):
        with pytest.raises(InvalidRequest, match=r"s3://bucket/prefix|the prefix"):
            open_store(wrong)


def test_the_portals_options_for_aws_reach_whoever_opens_its_store() -> None:
    given = {"store_url": "s3://studio/x?region=eu-west-3", "aws_region": "eu-west-1"}
    url = load(**given, aws_endpoint_url="http://127.0.0.1:5000", aws_kms_key="arn:aws:kms:a:1:key/2").store
    assert url == (
        "s3://studio/x?region=eu-west-3&endpoint_url=http://127.0.0.1:5000&kms_key=arn:aws:kms:a:1:key/2"
    )
    assert with_options("file:///data/store", region="eu-west-1") == "file:///data/store"


def test_a_large_file_goes_up_in_parts_and_comes_back_the_same(
    aws: Aws, store: S3BlobStore, tmp_path: Path
) -> None:
    content = os.urandom(MIB) * 17
    (tmp_path / "model").write_bytes(content)
    stat = store.put("models/m", tmp_path / "model", content_type="application/x-model")
    assert stat.size == len(content)
    assert stat.etag.endswith("-2")
    assert store.put("models/n", content).etag == stat.etag
    assert store.get("models/m") == content
    head = aws.client("s3").head_object(Bucket="studio", Key=store.bucket.prefix + "models/m")
    assert head["ContentType"] == "application/x-model"
    with pytest.raises(StorageFailed, match="Could not read"):
        store.put("models/m", tmp_path / "gone")


def test_what_is_written_is_encrypted_with_the_given_key(aws: Aws, tmp_path: Path) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    store = S3BlobStore(Bucket("studio", "sealed/", endpoint_url=aws.url, kms_key=key), aws.session)
    store.put("small", b"1")
    (tmp_path / "large").write_bytes(b"x" * (17 * MIB))
    store.put("large", tmp_path / "large")
    offer = store.offer_upload("sent", 3, expires=60)
    answer = httpx.put(offer.urls[0], content=b"abc")
    store.complete_upload("sent", offer.upload_id, [answer.headers["ETag"]], 3)
    for name in ("small", "large", "sent"):
        head = aws.client("s3").head_object(Bucket="studio", Key=f"sealed/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key), name


def test_a_listing_goes_on_over_many_answers(store: S3BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LISTED_AT_ONCE", 3)
    names = [f"jobs/{number:04d}" for number in range(10)]
    for name in names:
        store.put(name, b"")
    assert [each.key for each in store.list("jobs/")] == names


def test_a_stream_can_be_sought_in_and_notices_a_replacement(store: S3BlobStore) -> None:
    content = bytes(range(256)) * 4096
    store.put("model", content)
    with store.open("model") as source:
        source.seek(-3, io.SEEK_END)
        assert source.read() == content[-3:]
        source.seek(1000)
        assert source.read(5) == content[1000:1005]
        store.put("model", b"another")
        with pytest.raises(StorageFailed, match="replaced meanwhile"):
            source.seek(900_000)
            source.read(1)


def test_a_range_fills_what_it_is_given(store: S3BlobStore) -> None:
    stat = store.put("model", bytes(range(200)))
    buffer, rest = bytearray(50), bytearray(20)
    store.read_into("model", 100, [memoryview(buffer), memoryview(rest)], stat.etag)
    assert bytes(buffer + rest) == bytes(range(100, 170))
    with pytest.raises(StorageFailed, match="Could not read model"):
        store.read_into("model", 190, [memoryview(buffer)], stat.etag)
    store.put("model", bytes(200))
    with pytest.raises(StorageFailed, match="replaced meanwhile"):
        store.read_into("model", 100, [memoryview(buffer)], stat.etag)
    store.delete("model")
    with pytest.raises(NotFound):
        store.read_into("model", 100, [memoryview(buffer)], stat.etag)


def test_a_signed_url_reads_one_value_under_a_name_for_the_disk(store: S3BlobStore) -> None:
    store.put("pictures/1", b"pixels")
    url = store.url("pictures/1", expires=60, filename='a "b".png', content_type="image/png")
    assert url is not None
    answer = httpx.get(url)
    assert answer.content == b"pixels"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == 'attachment; filename="a _b_.png"'
    assert "X-Amz-Expires=60" in url
    longest = store.url("pictures/1", expires=1e9)
    assert longest is not None
    assert "X-Amz-Expires=604800" in longest


def test_a_signed_upload_arrives_in_parts_and_counts_once_it_is_complete(
    store: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "SENT_PART", 5 * MIB)
    content = os.urandom(5 * MIB) + b"the rest"
    offer = store.offer_upload("models/m", len(content), expires=600, content_type="application/x-model")
    assert offer.part_size == 5 * MIB
    pieces = [content[: 5 * MIB], content[5 * MIB :]]
    etags = [
        httpx.put(url, content=piece).headers["ETag"] for url, piece in zip(offer.urls, pieces, strict=True)
    ]
    assert store.stat("models/m") is None
    assert store.complete_upload("models/m", offer.upload_id, etags, len(content)).size == len(content)
    assert store.get("models/m") == content
    httpx.put(offer.urls[1], content=b"sent again, later")
    assert store.get("models/m") == content
    store.abandon_upload("models/m", offer.upload_id)


def test_an_upload_that_is_not_what_was_announced_leaves_nothing(store: S3BlobStore) -> None:
    offer = store.offer_upload("inputs/a", 4, expires=600)
    etag = httpx.put(offer.urls[0], content=b"more than four").headers["ETag"]
    with pytest.raises(InvalidRequest, match="14 bytes instead of the announced 4"):
        store.complete_upload("inputs/a", offer.upload_id, [etag], 4)
    offer = store.offer_upload("inputs/a", 4, expires=600)
    httpx.put(offer.urls[0], content=b"four")
    with pytest.raises(InvalidRequest, match="Send it again"):
        store.complete_upload("inputs/a", offer.upload_id, ["0" * 32], 4)
    assert store.stat("inputs/a") is None
    with pytest.raises(InvalidRequest, match="one byte"):
        store.offer_upload("inputs/a", 0, expires=600)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDenied", "s3:PutObject"),
        ("NoSuchBucket", "Create it"),
        ("ExpiredToken", "Renew them"),
        ("PermanentRedirect", "ATELIER_AWS_REGION"),
        ("SlowDown", "too busy"),
        ("KMS.DisabledException", "kms:GenerateDataKey"),
        ("Strange", "S3 answered Strange: because"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, says: str) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "because."}}
    error = readable("Could not write a", "studio", ClientError(answer, "PutObject"))
    assert error.message.startswith("Could not write a: ")
    assert says in error.message
    assert error.retryable


def test_without_credentials_or_a_bucket_the_reason_is_told(aws: Aws, free_port: int) -> None:
    assert "Give the process a role" in readable("x", "studio", NoCredentialsError()).message
    with pytest.raises(StorageFailed, match="there is no bucket nowhere-at-all"):
        open_store("s3://nowhere-at-all/x").put("a", b"1")


def test_an_address_where_nobody_answers_is_told(
    aws: Aws, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    unreached = Bucket("studio", endpoint_url=f"http://127.0.0.1:{free_port}")
    with pytest.raises(StorageFailed, match="S3 could not be reached"):
        S3BlobStore(unreached, aws.session).get("a")


CONTENT = os.urandom(300_000)


class _Shaky(http.server.BaseHTTPRequestHandler):
    """Answers 503 at first, then breaks off twice in the middle, then serves what is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range", ""))
        if len(self.asked) <= 2:
            said = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            self._answer(503, said, len(said))
            return
        start = int(self.asked[-1].removeprefix("bytes=").split("-")[0] or 0)
        rest = CONTENT[start:]
        self._answer(206 if start else 200, rest[:100_000] if len(self.asked) <= 4 else rest, len(rest))

    def _answer(self, status: int, sent: bytes, announced: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(announced))
        self.send_header("ETag", '"e"')
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shaky(aws: Aws) -> Iterator[tuple[S3BlobStore, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (_Shaky,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield S3BlobStore(Bucket("studio", endpoint_url=address), aws.session), asked
    server.shutdown()
    thread.join(60)
    server.server_close()


def test_a_busy_or_breaking_connection_is_tried_again_and_taken_up_where_it_broke(
    shaky: tuple[S3BlobStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    store, asked = shaky
    with store.open("model") as source:
        assert source.read() == CONTENT
    assert asked == ["", "", "", "bytes=100000-299999", "bytes=200000-299999"]
