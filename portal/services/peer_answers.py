"""The peer's answer to a finished job: `parameters` and `info` beside its pictures."""

from __future__ import annotations

from typing import Any

from atelier.contract.errors import AtelierError, Conflict, InternalError, from_body
from atelier.contract.jobs import JobState, JobView


def info(view: JobView) -> dict[str, Any]:
    """The peer's `info` of a final job, with a warning where not every picture was made."""
    told = {**view.info, "infotexts": _infotexts(view)}
    if view.error:
        said = str(view.error.get("message", "unknown reason"))
        notices = dict(told.get("atelier") or {})
        notices["warnings"] = [*notices.get("warnings", ()), f"Not every picture was made: {said}"]
        told["atelier"] = notices
    return told


def failure(view: JobView) -> AtelierError | None:
    """Why a final job has no answer; None where it has one."""
    if view.state is JobState.CANCELLED:
        return Conflict(
            "The job was cancelled, and its pictures were discarded. Send it again to have it made."
        )
    if view.state not in (JobState.FAILED, JobState.EXPIRED) or view.pictures:
        return None
    if view.error:
        return from_body(view.error)
    return InternalError(f"The job {view.id} ended as {view.state.value}.")


def _infotexts(view: JobView) -> list[str]:
    """Those of the images, in their order, then those of pictures that are kept but not shown, as the peer
    has it; maps of ControlNets have none.
    """
    told = [picture for picture in view.pictures if not picture.control_map]
    shown = [picture.infotext for picture in told if picture.shown]
    return shown + [picture.infotext for picture in told if not picture.shown]
