"""Where a model can be imported from: a repository of the Hugging Face Hub, a web address, an object in S3.

hf:ORGANISATION/REPOSITORY[@REVISION][/FILE] · https://HOST/PATH · s3://BUCKET/KEY
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from atelier.contract.errors import InvalidRequest

HUB = "https://huggingface.co"
LONGEST = 1000
"""Characters of a source."""
FORMS = "hf:organisation/repository, https://host/path or s3://bucket/key"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB = re.compile(rf"hf:({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._-]{{0,99}}))?(?:/(.+))?\Z")
_PAGE = re.compile(rf"/({_PART}/{_PART})(?:/(?:blob|resolve|tree|raw)/([^/]+)(?:/(.+))?)?/?\Z")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_ODD = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hub, or one `file` of it; without a `revision` its main one."""

    repository: str
    revision: str = ""
    file: str = ""

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}{at}{'/' if self.file else ''}{self.file}"

    @property
    def filename(self) -> str:
        """What its file is called; a repository's own name."""
        return (self.file or self.repository).rsplit("/", 1)[-1]


@dataclass(frozen=True)
class WebSource:
    """A file at an address."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def filename(self) -> str:
        """The last word of its path, perhaps empty: the site may tell another."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]


@dataclass(frozen=True)
class BucketSource:
    """An object in S3."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def filename(self) -> str:
        """The last word of its key."""
        return self.key.rsplit("/", 1)[-1]


Source = HubSource | WebSource | BucketSource


def parse(text: str, hub: str = HUB) -> Source:
    """What `text` names. The address of a repository's or a file's page at `hub` names that repository or
    file. Raises InvalidRequest.
    """
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise InvalidRequest(f"A source has from 1 to {LONGEST:,} characters: {FORMS}.")
    if text.startswith("hf:"):
        return _of_the_hub(text)
    if text.startswith("s3://"):
        return _of_a_bucket(text)
    if text.lower().startswith(("https://", "http://")):
        page = text.removeprefix(hub.rstrip("/")) if text.startswith(f"{hub.rstrip('/')}/") else ""
        found = _PAGE.match(page.partition("?")[0])
        if found is not None and found[1].split("/")[0] not in ("api", "datasets", "spaces"):
            return _of_a_page(HubSource(found[1], unquote(found[2] or ""), _file(unquote(found[3] or ""))))
        return WebSource(text)
    raise InvalidRequest(f"{text[:80]!r} is no source of a model. Give {FORMS}.")


def _of_the_hub(text: str) -> HubSource:
    found = _HUB.match(text)
    if found is None or ".." in found[1]:
        raise InvalidRequest(
            f"{text[:120]!r} names no repository. Give hf:organisation/repository, with @revision and /file "
            "where they are needed."
        )
    return HubSource(found[1], found[2] or "", _file(found[3] or ""))


def _of_a_page(found: HubSource) -> HubSource:
    """What a page's address names, if it can be written as a source: one is kept and told as that. Raises
    InvalidRequest, as for the revision refs/pr/1, whose slash begins a file in it.
    """
    try:
        same = parse(str(found)) == found
    except InvalidRequest:
        same = False
    if not same:
        raise InvalidRequest(
            f"The revision {found.revision[:80]!r} with the file {found.file[:80]!r} cannot be told apart "
            "once written down. Give hf:organisation/repository@REVISION/FILE with a branch or tag without a "
            "slash, or the commit's digits."
        )
    return found


def _file(path: str) -> str:
    """A file's path inside a repository. Raises InvalidRequest for what leads out of it."""
    words = path.split("/")
    if path and (_ODD.search(path) or any(word in ("", ".", "..") for word in words)):
        raise InvalidRequest(f"{path[:120]!r} is no path of a file in a repository.")
    return path


def _of_a_bucket(text: str) -> BucketSource:
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if not _BUCKET.match(bucket) or ".." in bucket:
        raise InvalidRequest(f"{bucket[:80]!r} is no name of a bucket.")
    if not key or key.endswith("/") or any(ord(letter) < 32 for letter in key):
        raise InvalidRequest(f"{text[:120]!r} names no object: give s3://bucket/key.")
    return BucketSource(bucket, key)
