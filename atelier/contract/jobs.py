"""What is seen of a job: by its owner, and by whom they share it with."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.parts import Frozen


class JobState(StrEnum):
    """A job's state, derived from its parts'. The last five are final."""

    QUEUED = "queued"
    WAKING = "waking"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self not in (JobState.QUEUED, JobState.WAKING, JobState.RUNNING)


class PartState(StrEnum):
    """A part's state. `dispatched` is held as long as an engine may still run it; `running` by its growing
    progress.
    """

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Whether the part is done with."""
        return self not in (PartState.QUEUED, PartState.DISPATCHED, PartState.RUNNING)


class JobRequest(BaseModel):
    """POST /api/v1/jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "text-to-image"
    model: str | None = None
    endpoint: str = "automatic"
    priority: int = Field(0, strict=True, ge=-100, le=100)
    """Among one's own jobs, the highest first; nobody else's wait longer for it."""
    txt2img_payload: dict[str, Any] = {}


class ProgressView(Frozen):
    """How far a job is. fraction 0..1. `phase` is queued, waking (a worker is being started), loading (its
    worker loads the model, which `note` names), encoding, steps, decoding or storing. eta_s is seconds until
    all is done, from what like parts took; None where none were measured.
    """

    fraction: float = 0.0
    phase: str = "queued"
    step: int = 0
    steps: int = 0
    pictures_done: int = 0
    pictures: int = 0
    eta_s: float | None = None
    preview_url: str | None = None
    note: str = ""


class PictureView(Frozen):
    """A finished picture. `url` shows it, `download_url` saves the exact stored bytes."""

    id: str
    url: str
    download_url: str
    seed: int
    subseed: int
    width: int
    height: int
    infotext: str
    complete: bool = True
    grid: bool = False
    """A grid of the job's pictures; grids come first."""
    control_map: bool = False
    """What a ControlNet's preprocessor made of its picture; maps come last."""
    shown: bool = True
    """False for pictures kept beside a grid that stands for them (an X/Y/Z plot without its sub images)."""


class JobView(Frozen):
    """GET /api/v1/jobs/{id}, and each `job` event of its stream."""

    id: str
    task: str
    owner: str = ""
    """The user's name."""
    visibility: str = "private"
    """private, team or studio: who sees it besides its owner."""
    team: str | None = None
    """The name of the team it is shared with."""
    state: JobState
    created: float
    endpoint: str | None = None
    model: str | None = None
    priority: int = 0
    queue_position: int | None = None
    """1 for the next to run; None once it runs."""
    progress: ProgressView = ProgressView()
    pictures: tuple[PictureView, ...] = ()
    info: dict[str, Any] = Field(default_factory=dict)
    """The peer's `info` object, with `atelier.warnings` and `atelier.ignored`."""
    error: dict[str, Any] | None = None
    timeline: dict[str, float] = Field(default_factory=dict)
    version: int = 0
    """Grows with each change that is worth an event."""
