"""Tables of work: models, endpoints, jobs with their parts, attempts and pictures, idempotency keys,
leases, instances.

Times are unix seconds (double precision). JSON columns hold what the wire carries, unchanged. Everything
that must happen once is a unique constraint here, not a check in a service.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID, Base
from portal.db.sharing import Shareable

Seconds = Float(53)
"""Double precision on every database: PostgreSQL's plain FLOAT would do, MySQL's would not."""


class Model(Shareable, Base):
    """A model file that may be named in requests: the studio's, or a user's own. `sha256` is of the file as
    it was given, `blob_sha256` of what is stored.
    """

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("owner_id", "kind", "name"),
        # Nulls are no two of a kind to a unique constraint, so the studio's names have an index of their own.
        Index(
            "uq_models_studio_name",
            "kind",
            "name",
            unique=True,
            sqlite_where=text("owner_id IS NULL"),
            postgresql_where=text("owner_id IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    """Null: the studio's own."""
    visibility: Mapped[str] = mapped_column(String(8), default="studio", server_default="studio")
    kind: Mapped[str] = mapped_column(String(20), index=True)
    name: Mapped[str] = mapped_column(String(200))
    filename: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    blob_sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    short_hash: Mapped[str] = mapped_column(String(12))
    legacy_hash: Mapped[str | None] = mapped_column(String(8))
    config_sha256: Mapped[str | None] = mapped_column(String(64))
    family: Mapped[str | None] = mapped_column(String(40))
    resolution: Mapped[str | None] = mapped_column(String(12))
    """"WIDTHxHEIGHT" in pixels, as the file states it."""
    standard: Mapped[bool] = mapped_column(Boolean, default=False)
    """The checkpoint that is used where a request names none."""
    created: Mapped[float] = mapped_column(Seconds)
    modified: Mapped[float] = mapped_column(Seconds, default=0.0)
    """When the file itself was last changed."""
    alias: Mapped[str | None] = mapped_column(String(255))
    """The name its trainer gave it (ss_output_name): prompts may use it."""
    addnet_hash: Mapped[str | None] = mapped_column(String(64))
    """Of networks: kohya's hash of the file without its header."""
    family_override: Mapped[str | None] = mapped_column(String(40))
    """What an administrator says the family is; it beats `family`, which was told by the file."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict, deferred=True)
    """{"metadata": the header's own, "embedding": {"vectors", "shape", ...}}. Large: read where asked for."""
    notes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What people say of it: the fields of portal.services.model_notes.Notes."""
    preview_sha256: Mapped[str | None] = mapped_column(String(64))
    folder: Mapped[str] = mapped_column(String(400), default="")
    """Its sub-folder below the folder of its kind, with `/` between the names."""
    source: Mapped[str | None] = mapped_column(String(1000))
    """Where a linked file lies on the portal's machine. Never shown."""
    missing_since: Mapped[float | None] = mapped_column(Seconds)
    """When a linked file was found to be gone; no request can name it until it is found again."""


class ModelFolder(Base):
    """A folder of the portal's machine whose model files are linked in place, new ones at each refresh."""

    __tablename__ = "model_folders"
    __table_args__ = (UniqueConstraint("path"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    path: Mapped[str] = mapped_column(String(1000))
    kind: Mapped[str | None] = mapped_column(String(20))
    """What its files are; null where their folders' names say it."""
    created: Mapped[float] = mapped_column(Seconds)


class RetiredBlob(Base):
    """A stored file whose model was deleted: it goes once no unfinished part needs it."""

    __tablename__ = "retired_blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    since: Mapped[float] = mapped_column(Seconds)


class Endpoint(Base):
    """An inference endpoint as an administrator wants it, and as the fleet last described it."""

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    min_instances: Mapped[int] = mapped_column(Integer, default=1)
    max_instances: Mapped[int] = mapped_column(Integer, default=1)
    slots: Mapped[int] = mapped_column(Integer, default=8)
    idle_seconds: Mapped[float] = mapped_column(Seconds, default=600.0)
    threads: Mapped[int] = mapped_column(Integer, default=1)
    options: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    state: Mapped[str] = mapped_column(String(20), default="creating")
    reason: Mapped[str] = mapped_column(Text, default="")
    instances: Mapped[int] = mapped_column(Integer, default=0)
    created: Mapped[float] = mapped_column(Seconds)
    target: Mapped[int | None] = mapped_column(Integer)
    """Parts for each instance that are enough for another one; None: as many as it has slots."""
    instance_type: Mapped[str] = mapped_column(String(60), default="", server_default="")
    price_hour: Mapped[float] = mapped_column(Seconds, default=0.0, server_default=text("0"))
    kind: Mapped[str] = mapped_column(String(20), default="async", server_default="async")
    image: Mapped[str] = mapped_column(String(300), default="", server_default="")
    metric: Mapped[str] = mapped_column(String(20), default="demand", server_default="demand")
    schedule: Mapped[str] = mapped_column(String(400), default="", server_default="")
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    """What it waits for, in words."""
    wanted: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    leaving: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    last_error: Mapped[str] = mapped_column(Text, default="", server_default="")
    last_error_at: Mapped[float | None] = mapped_column(Seconds)


class EndpointUsage(Base):
    """How long instances of an endpoint ran on a day (UTC, as 2031-12-24), and what that cost; kept when the
    endpoint goes.
    """

    __tablename__ = "endpoint_usage"

    endpoint: Mapped[str] = mapped_column(String(63), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    seconds: Mapped[float] = mapped_column(Seconds)
    cost: Mapped[float] = mapped_column(Seconds)


class Instance(Base):
    """A worker as it last described itself in the blob store (InstanceState)."""

    __tablename__ = "instances"

    endpoint: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    at: Mapped[float] = mapped_column(Seconds)
    described: Mapped[dict[str, Any]] = mapped_column(JSON)


class Job(Shareable, Base):
    """What a user asked for. `state` is derived from the parts in the transaction that changes them;
    `version` grows with it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_created", "owner_id", "created"),
        Index("ix_jobs_owner_state", "owner_id", "state"),
        Index("ix_jobs_created_id", "created", "id"),
        Index("ix_jobs_state_created_id", "state", "created", "id"),
        Index("ix_jobs_visibility_created_id", "visibility", "created", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    task: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20), default="queued")
    endpoint: Mapped[str | None] = mapped_column(String(63))
    """The endpoint that was asked for; None for automatic."""
    priority: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Among its owner's own jobs: the highest is taken first."""
    model: Mapped[str | None] = mapped_column(String(255))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The payload as it was accepted: what sdapi echoes as `parameters`."""
    info: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What the resolver said of the whole job: the peer's `info` keys, warnings and ignored fields."""
    arrangement: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    """How the pictures are laid out (atelier.contract.grids.Arrangement)."""
    grids_due: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether grids are still to be drawn once the job is final."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    version: Mapped[int] = mapped_column(Integer, default=1)
    created: Mapped[float] = mapped_column(Seconds)
    finished: Mapped[float | None] = mapped_column(Seconds)


class Part(Base):
    """What is dispatched: one batch of one iteration. `attempt` is the attempt that counts, 0 before the
    first.
    """

    __tablename__ = "parts"
    __table_args__ = (
        UniqueConstraint("job_id", "ordinal"),
        Index("ix_parts_waiting", "state", "owner_id", "created", "ordinal"),
        Index("ix_parts_died_id", "died", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    owner_id: Mapped[str] = mapped_column(ID)
    ordinal: Mapped[int] = mapped_column(Integer)
    first_index: Mapped[int] = mapped_column(Integer)
    """Index within the job of the part's first picture."""
    state: Mapped[str] = mapped_column(String(20), default="queued")
    created: Mapped[float] = mapped_column(Seconds)
    not_before: Mapped[float] = mapped_column(Seconds, default=0.0)
    wanted_endpoint: Mapped[str | None] = mapped_column(String(63))
    checkpoint_blob: Mapped[str] = mapped_column(String(64))
    resolved: Mapped[dict[str, Any]] = mapped_column(JSON)
    recipe_hash: Mapped[str] = mapped_column(String(64))
    endpoint: Mapped[str | None] = mapped_column(String(63))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    pictures: Mapped[int] = mapped_column(Integer, default=1)
    """How many it makes."""
    losses: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How often it was lost with a worker that may have had other parts too."""
    priority: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Its job's."""
    work: Mapped[float] = mapped_column(Seconds, default=1.0, server_default=text("1"))
    shape: Mapped[str] = mapped_column(String(80), default="", server_default=text("''"))
    """What its time depends on, see portal.domain.effort; `work` is from there too."""
    died: Mapped[float | None] = mapped_column(Seconds)
    """When it failed for good though another attempt might have mended it: its attempts were used up."""
    retried_as: Mapped[str | None] = mapped_column(ID)
    """The job in which it was tried again afterwards."""
    action: Mapped[str | None] = mapped_column(String(20))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    timeline: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)


class Attempt(Base):
    """One try at a part. It is open, and counts against its endpoint's room, as long as an engine may still
    run it.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("part_id", "number"),
        Index("ix_attempts_open", "open", "endpoint"),
        Index("ix_attempts_owner_started", "owner_id", "started"),
        Index("ix_attempts_started", "started"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    part_id: Mapped[str] = mapped_column(ForeignKey("parts.id"))
    job_id: Mapped[str] = mapped_column(ID)
    owner_id: Mapped[str] = mapped_column(ID)
    number: Mapped[int] = mapped_column(Integer)
    endpoint: Mapped[str] = mapped_column(String(63))
    ticket: Mapped[str | None] = mapped_column(String(200))
    open: Mapped[bool] = mapped_column(Boolean, default=True)
    outcome: Mapped[str | None] = mapped_column(String(20))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What ended it, where it brought no result."""
    started: Mapped[float] = mapped_column(Seconds)
    ended: Mapped[float | None] = mapped_column(Seconds)
    lease_until: Mapped[float] = mapped_column(Seconds)
    worked: Mapped[float] = mapped_column(Seconds, default=0.0)
    """Seconds from its arrival at the worker until its pictures were stored; 0 where it brought none."""
    woke: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether its endpoint had no instance in service when it was sent."""
    alone: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether its endpoint had nothing else, and got nothing else, as long as it was open."""


MAPS_FROM = 1_000_000
"""Index of a job's first map of a ControlNet: behind all its pictures."""


class Picture(Base):
    """A visible picture. Its row appears in the transaction that makes the part final: there is never half
    a result.
    """

    __tablename__ = "pictures"
    __table_args__ = (
        UniqueConstraint("job_id", "index"),
        Index("ix_pictures_owner_created", "owner_id", "created", "index", "size"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(ID, index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    part_id: Mapped[str] = mapped_column(ForeignKey("parts.id"), index=True)
    index: Mapped[int] = mapped_column(Integer)
    """Position in the job; a grid's is negative, so that grids come first, a map's from MAPS_FROM on."""
    key: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    seed: Mapped[str] = mapped_column(String(20))
    """Decimal: a seed may be larger than a database's integers."""
    subseed: Mapped[str] = mapped_column(String(20))
    infotext: Mapped[str] = mapped_column(Text)
    recipe_hash: Mapped[str] = mapped_column(String(64), index=True)
    complete: Mapped[bool] = mapped_column(Boolean, default=True)
    created: Mapped[float] = mapped_column(Seconds)


class IdempotencyKey(Base):
    """A key a user sent with a request, and the job it made. The same key with another body is a conflict."""

    __tablename__ = "idempotency_keys"

    owner_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ID)
    created: Mapped[float] = mapped_column(Seconds, index=True)


class AnswerDue(Base):
    """A job whose answer is still to be put into the store, for who sent it to /inference; gone once it is
    there.
    """

    __tablename__ = "answers_due"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    form: Mapped[str] = mapped_column(String(12))
    """published or plain: the schema of its request, and so of its answer."""
    output: Mapped[str] = mapped_column(String(8))
    """base64 or s3: whether the answer holds the pictures, or says where they are."""


class Turn(Base):
    """Where a user stands in the order in which parts are sent (portal.domain.fairness.Turn)."""

    __tablename__ = "turns"

    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[float] = mapped_column(Seconds)
    finish: Mapped[float] = mapped_column(Seconds)


class Lease(Base):
    """Who does a work that only one process may do, until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until: Mapped[float] = mapped_column(Seconds)
