"""The blob store in a bucket of S3, or of whatever else speaks its protocol."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract.errors import AtelierError, InvalidRequest, NotFound, StorageFailed
from atelier.storage.base import BlobStat, DirectUpload, checked_key
from atelier.storage.s3_failures import ABSENT, UNCHANGED, code_of, readable
from atelier.storage.s3_reading import ResumingStream

MIB = 2**20
MULTIPART = TransferConfig(
    multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, max_concurrency=8, use_threads=True
)
"""From which size on, in what pieces and how many at once something is sent."""
SENT_PART = 64 * MIB
"""Bytes of a part that somebody else sends; more where there would be too many."""
MOST_PARTS = 10_000
LONGEST_URL_SECONDS = 7 * 86_400.0
"""What S3 takes. With a role's credentials a URL dies with them, whatever it says."""
ATTEMPTS = 6
"""Of one call, with pauses that grow up to 20 s."""
LISTED_AT_ONCE = 1000
FILLED_AT_ONCE = 2 * MIB
"""Bytes asked of a connection in one go: it makes a copy of them."""
_STREAM_BUFFER = 256 * 1024
_FAILURES = (BotoCoreError, ClientError)


@dataclass(frozen=True)
class Bucket:
    """A place in S3: keys of the store lie below `prefix` (empty, or ending with a slash). `region` and
    `endpoint_url`: botocore's own where they are None. `kms_key`: ARN of the key that encrypts what is
    written, None for the bucket's own encryption.
    """

    name: str
    prefix: str = ""
    region: str | None = None
    endpoint_url: str | None = None
    kms_key: str | None = None


class S3BlobStore:
    """Blobs as objects. Safe for threads. Calls that fail for a moment are made again, up to five times with
    growing pauses; what fails then is a StorageFailed that says what to do.
    """

    def __init__(self, bucket: Bucket, session: Any = None) -> None:
        self.bucket = bucket
        session = session or boto3.session.Session()
        self._client = session.client("s3", **_options(bucket, session))
        self._presigner = session.client("s3", **_options(bucket, session, presigning=True))
        # Whether the bucket keeps a key of its own for it (fewer calls of KMS) is the bucket's setting.
        self._encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": bucket.kms_key} if bucket.kms_key else {}
        )

    def put(self, key: str, data: bytes | Path, *, content_type: str | None = None) -> BlobStat:
        """See BlobStore. Something large is sent in parts, several at once, and is there when all of them
        are.
        """
        place = self._place(key)
        more = self._encryption | ({"ContentType": content_type} if content_type else {})
        if isinstance(data, Path):
            try:
                with data.open("rb") as source:
                    return self._sent(key, source, more)
            except OSError as error:
                raise StorageFailed(f"Could not read {data}: {error.strerror or error}.") from error
        if len(data) > MULTIPART.multipart_threshold:
            return self._sent(key, io.BytesIO(data), more)
        said = self._asked(
            f"Could not write {key}", lambda: self._client.put_object(**place, Body=data, **more)
        )
        return BlobStat(key, len(data), _etag(said), _date(said))

    def get(self, key: str) -> bytes:
        """See BlobStore."""
        said = self._got(key)
        value = bytearray(said["ContentLength"])
        self._fill(key, 0, [memoryview(value)], _etag(said), said["Body"])
        return bytes(value)

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        """See BlobStore. One conditional request."""
        condition = {"IfNoneMatch": f'"{etag}"'} if etag else {}
        try:
            said = self._got(key, **condition)
        except NotFound:
            return None
        except _Unchanged:
            return None
        value = bytearray(said["ContentLength"])
        self._fill(key, 0, [memoryview(value)], _etag(said), said["Body"])
        return bytes(value), _etag(said)

    def open(self, key: str) -> BinaryIO:
        """See BlobStore. It is read as it comes, and can be sought in; replaced meanwhile, it cannot be read
        on.
        """
        said = self._got(key)
        size, etag = int(said["ContentLength"]), _etag(said)
        stream = self._stream(key, size, etag, said["Body"])
        return cast(BinaryIO, io.BufferedReader(stream, _STREAM_BUFFER))

    def read_into(self, key: str, start: int, buffers: Sequence[memoryview], etag: str) -> None:
        """See ReadsRanges."""
        checked_key(key)
        self._fill(key, start, buffers, etag, None)

    def stat(self, key: str) -> BlobStat | None:
        """See BlobStore."""
        place = self._place(key)
        try:
            said = self._asked(f"Could not look at {key}", lambda: self._client.head_object(**place))
        except NotFound:
            return None
        return BlobStat(key, int(said["ContentLength"]), _etag(said), said["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """See BlobStore."""
        place = self._place(key)
        self._asked(f"Could not delete {key}", lambda: self._client.delete_object(**place))

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See BlobStore. They are fetched as the listing comes to them."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name,
            Prefix=self.bucket.prefix + prefix,
            PaginationConfig={"PageSize": LISTED_AT_ONCE},
        )
        page = iter(pages)
        skipped = len(self.bucket.prefix)
        while True:
            said = self._asked(f"Could not list {prefix or 'the store'}", lambda: next(page, None))
            if said is None:
                return
            for each in said.get("Contents", ()):
                modified = each["LastModified"].timestamp()
                yield BlobStat(each["Key"][skipped:], int(each["Size"]), each["ETag"].strip('"'), modified)

    def local_path(self, key: str) -> Path | None:
        """Nothing of a bucket is on this machine."""
        checked_key(key)
        return None

    def location(self, key: str) -> str:
        """See BlobStore."""
        return f"s3://{self.bucket.name}/{self._place(key)['Key']}"

    def url(
        self, key: str, *, expires: float, filename: str | None = None, content_type: str | None = None
    ) -> str | None:
        """See BlobStore. No request is made, and none is answered before somebody uses it."""
        place: dict[str, Any] = self._place(key)
        if filename:
            place["ResponseContentDisposition"] = f'attachment; filename="{_quotable(filename)}"'
        if content_type:
            place["ResponseContentType"] = content_type
        return self._signed("get_object", place, expires)

    def offer_upload(
        self, key: str, size: int, *, expires: float, content_type: str | None = None
    ) -> DirectUpload:
        """See TakesUploads. Always in parts, be it a single one: a plain PUT could be sent again after its
        content was checked.
        """
        if size <= 0:
            raise InvalidRequest("An upload has at least one byte.")
        place: dict[str, Any] = self._place(key)
        more = self._encryption | ({"ContentType": content_type} if content_type else {})
        said = self._asked(
            f"Could not begin the upload of {key}",
            lambda: self._client.create_multipart_upload(**place, **more),
        )
        upload = str(said["UploadId"])
        part = max(SENT_PART, math.ceil(size / MOST_PARTS / MIB) * MIB)
        urls = tuple(
            self._signed(
                "upload_part",
                place
                | {"UploadId": upload, "PartNumber": number + 1, "ContentLength": min(part, size - start)},
                expires,
            )
            for number, start in enumerate(range(0, size, part))
        )
        return DirectUpload(upload, part, urls)

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str], size: int) -> BlobStat:
        """See TakesUploads."""
        place: dict[str, Any] = self._place(key)
        parts = [
            {"PartNumber": number, "ETag": f'"{etag.strip(chr(34))}"'} for number, etag in enumerate(etags, 1)
        ]
        try:
            self._client.complete_multipart_upload(
                **place, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except _FAILURES as error:
            if code_of(error) not in ("InvalidPart", "InvalidPartOrder", "EntityTooSmall", "NoSuchUpload"):
                raise readable(f"Could not complete the upload of {key}", self.bucket.name, error) from error
            self.abandon_upload(key, upload_id)
            raise InvalidRequest(
                f"The parts of the upload are not the ones that were sent ({code_of(error)}). Send it again."
            ) from error
        found = self.stat(key)
        if found is None or found.size != size:
            self.delete(key)
            came = found.size if found else 0
            raise InvalidRequest(
                f"The upload has {came:,} bytes instead of the announced {size:,}. Send it again."
            )
        return found

    def abandon_upload(self, key: str, upload_id: str) -> None:
        """See TakesUploads."""
        place = self._place(key)
        try:
            self._client.abort_multipart_upload(**place, UploadId=upload_id)
        except _FAILURES as error:
            if code_of(error) not in ABSENT | {"NoSuchUpload"}:
                raise readable(f"Could not drop the upload of {key}", self.bucket.name, error) from error

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket.name, "Key": self.bucket.prefix + checked_key(key)}

    def _sent(self, key: str, source: BinaryIO, more: dict[str, Any]) -> BlobStat:
        place = self._place(key)

        def send() -> None:
            self._client.upload_fileobj(source, **place, ExtraArgs=more or None, Config=MULTIPART)

        self._asked(f"Could not write {key}", send)
        found = self.stat(key)
        if found is None:
            raise StorageFailed(f"{key} vanished while it was written.")
        return found

    def _got(self, key: str, **more: Any) -> Any:
        place = self._place(key)
        return self._asked(f"Could not read {key}", lambda: self._client.get_object(**place, **more))

    def _stream(self, key: str, end: int, etag: str, body: Any = None, *, start: int = 0) -> ResumingStream:
        def fetch(at: int) -> Any:
            return self._got(key, Range=f"bytes={at}-{end - 1}", IfMatch=f'"{etag}"')["Body"]

        def gone(error: BaseException) -> AtelierError:
            return readable(f"Could not read {key}", self.bucket.name, error)

        return ResumingStream(end, body, fetch, _FAILURES, gone, start=start)

    def _fill(self, key: str, start: int, buffers: Sequence[memoryview], etag: str, body: Any) -> None:
        end = start + sum(len(buffer) for buffer in buffers)
        with self._stream(key, end, etag, body, start=start) as stream:
            for buffer in buffers:
                filled = 0
                while filled < len(buffer):
                    filled += stream.readinto(buffer[filled : filled + FILLED_AT_ONCE])

    def _signed(self, operation: str, given: dict[str, Any], expires: float) -> str:
        seconds = int(max(1.0, min(expires, LONGEST_URL_SECONDS)))
        try:
            return str(self._presigner.generate_presigned_url(operation, Params=given, ExpiresIn=seconds))
        except _FAILURES as error:
            raise readable(f"Could not sign a URL of {given['Key']}", self.bucket.name, error) from error

    def _asked(self, what: str, call: Callable[[], Any]) -> Any:
        """What S3 answers. Raises NotFound, _Unchanged, StorageFailed."""
        try:
            return call()
        except _FAILURES as error:
            code = code_of(error)
            if code in ABSENT:
                raise NotFound(f"{what}: there is nothing stored under it.") from error
            if code in UNCHANGED:
                raise _Unchanged from error
            if code in ("PreconditionFailed", "412"):
                raise StorageFailed(f"{what}: it was replaced meanwhile. Read it again.") from error
            raise readable(what, self.bucket.name, error) from error


class _Unchanged(Exception):
    """The value still has the etag that was given."""


def _options(bucket: Bucket, session: Any, *, presigning: bool = False) -> dict[str, Any]:
    """What a client of the bucket is made with. A bucket that has an address of its own is named in the path;
    URLs for others name its region, so that a bucket of yesterday is found there.
    """
    address = (
        bucket.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    region = bucket.region or session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if address or "." in bucket.name else "virtual"},
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=48,
        tcp_keepalive=True,
        request_checksum_calculation="when_required" if presigning else "when_supported",
    )
    return {"region_name": region, "endpoint_url": address or None, "config": config}


def _etag(said: Any) -> str:
    return str(said["ETag"]).strip('"')


def _date(said: Any) -> float:
    """When the bucket wrote it: its own clock's time of the answer."""
    date = said["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


def _quotable(filename: str) -> str:
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "_" for each in filename)
