"""From a URL in the settings to a blob store.

    file:///absolute/path
    s3://bucket/prefix?region=…&endpoint_url=…&kms_key=…

What a bucket's URL leaves out is botocore's own: AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL, and the
bucket's own encryption. Credentials never stand in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from atelier.contract.errors import InvalidRequest
from atelier.storage.base import BlobStore, checked_key
from atelier.storage.filesystem import FilesystemBlobStore

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
OPTIONS = ("region", "endpoint_url", "kms_key")
"""What may follow the ? in a bucket's URL."""


def open_store(url: str) -> BlobStore:
    """The store at `url`. Raises InvalidRequest for what is none."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FilesystemBlobStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        return _bucket(url)
    raise InvalidRequest(
        f"{url!r} is no store this build can open. Give file:///path, or s3://bucket/prefix."
    )


def with_options(url: str, **options: str | None) -> str:
    """A bucket's URL with those `options` in it that it does not give itself; any other URL as it is."""
    parts = urlsplit(url)
    if parts.scheme != "s3":
        return url
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    more = {name: value for name, value in options.items() if value and name not in given}
    return parts._replace(query=urlencode(given | more, quote_via=quote, safe=":/")).geturl()


def _bucket(url: str) -> BlobStore:
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    given = parse_qs(parts.query, keep_blank_values=True)
    wrong = [name for name in given if name not in OPTIONS]
    if not _BUCKET.match(parts.netloc) or wrong or parts.fragment:
        known = ", ".join(OPTIONS)
        raise InvalidRequest(
            f"{url!r} is no address of a bucket. Give s3://bucket/prefix; after a ? may follow {known}."
        )
    try:
        prefix = f"{checked_key(prefix)}/" if prefix else ""
    except ValueError as error:
        raise InvalidRequest(
            f"{url!r}: the prefix in a bucket has letters, digits and . _ - alone."
        ) from error
    try:
        from atelier.storage import s3  # brings boto3, which nobody without a bucket needs
    except ImportError as error:
        raise InvalidRequest(
            "A store in S3 needs boto3, which is not installed here: pip install 'atelier[aws]'"
        ) from error
    options = {name: values[-1] for name, values in given.items() if values[-1]}
    return s3.S3BlobStore(s3.Bucket(parts.netloc, prefix, **options))
