"""What the portal asks of the task that imports a model, and what that tells."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.models import ModelKind

Phase = Literal["looking", "fetching", "converting", "hashing", "storing"]


class ImportOrder(BaseModel):
    """One import. It lies sealed in the store, since it may hold a token: AES-256-GCM, the nonce's 12 bytes
    in front, its own key of the store as the associated data. The task gets the key that opens it as
    `BLOB#HEX`, and removes the order as it reads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """As atelier.modelsource reads it."""
    kind: ModelKind
    hub: str
    sha256: str = ""
    """Of the file as it should come; "" takes what the site itself states, if anything."""
    limit: int
    """The most bytes."""
    limited_by: str = "ATELIER_MAX_MODEL_BYTES"
    """What says so, in the words of a message."""
    seconds: float
    hosts: tuple[str, ...]
    networks: tuple[str, ...] = ()
    token: str = Field("", repr=False)
    token_site: str = ""
    """The one site that the token is for: a host, with a port that is not the scheme's own."""
    bucket_options: dict[str, str] = {}
    """`region` and `endpoint_url` of S3 where they are not botocore's own."""


class ImportProgress(BaseModel):
    """How far a task is: bytes that are there, and of how many (None: nobody says)."""

    model_config = ConfigDict(frozen=True)

    phase: Phase = "looking"
    done: int = 0
    total: int | None = None


class ImportOutcome(BaseModel):
    """A model that lies in the store. The hashes and `size` are of the file as it was given, `blob_sha256` of
    what is stored.
    """

    model_config = ConfigDict(frozen=True)

    filename: str
    sha256: str
    short_hash: str
    legacy_hash: str
    size: int
    blob_sha256: str
    addnet_hash: str | None = None
    revision: str = ""
    """The commit of the repository it came from."""
    verified: bool = False
    """Whether a sha256 that was given or stated was compared with the file's own."""
