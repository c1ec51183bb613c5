"""Where things lie in the blob store. Both sides derive every key from ids: no location ever travels in a
body.
"""

from __future__ import annotations

import re

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def _checked(name: str) -> str:
    if not _SAFE.match(name) or ".." in name:
        raise ValueError(f"{name[:80]!r} cannot be part of a blob key")
    return name


def model(blob_sha256: str) -> str:
    """The stored file of a model, or of its configuration, by the sha256 of its bytes."""
    return f"models/{_checked(blob_sha256)}"


def model_preview(sha256: str) -> str:
    """A model's preview picture, by the sha256 of its bytes."""
    return f"previews/{_checked(sha256)}"


def probe(name: str) -> str:
    """What a process writes and removes to see whether it can."""
    return f"health/{_checked(name)}.json"


def part_control(job: str, part: str) -> str:
    """{"attempt", "action"} of one part: the first thing a worker reads."""
    return f"jobs/{_checked(job)}/{_checked(part)}/control.json"


def endpoint_control(endpoint: str) -> str:
    """All open actions of an endpoint: what a worker reads once a second, conditionally."""
    return f"control/{_checked(endpoint)}.json"


def attempt(job: str, part: str, number: int) -> str:
    """The prefix under which alone an attempt writes (ends with a slash)."""
    return f"jobs/{_checked(job)}/{_checked(part)}/{number:d}/"


def invocation(job: str, part: str, number: int) -> str:
    """The signed body of an attempt, where an asynchronous endpoint fetches it from."""
    return attempt(job, part, number) + "invocation.json"


def async_answers(endpoint: str) -> str:
    """The folder of what SageMaker notes of asynchronous calls that went well."""
    return f"async/{_checked(endpoint)}/answers"


def async_failures(endpoint: str) -> str:
    """The folder of what it notes of those that did not."""
    return f"async/{_checked(endpoint)}/failures"


CUSTOM = "custom/"
"""Where calls of custom endpoints and their answers lie: they are kept for days."""


def custom_answers(endpoint: str) -> str:
    """As `async_answers`, of an endpoint that runs somebody's own image."""
    return f"{CUSTOM}{_checked(endpoint)}/answers"


def custom_failures(endpoint: str) -> str:
    """As `async_failures`, of such an endpoint."""
    return f"{CUSTOM}{_checked(endpoint)}/failures"


def custom_body(user: str, call: str) -> str:
    """The body of a user's call of a custom endpoint."""
    return f"{CUSTOM}{_checked(user)}/{_checked(call)}"


def custom_call(user: str, call: str) -> str:
    """What is remembered of that call."""
    return f"{CUSTOM}{_checked(user)}/{_checked(call)}.json"


def progress(job: str, part: str, number: int) -> str:
    """Progress of a running attempt, overwritten with a growing `seq`."""
    return attempt(job, part, number) + "progress.json"


def preview(job: str, part: str, number: int, seq: int) -> str:
    """The preview JPEG that progress `seq` names."""
    return attempt(job, part, number) + f"preview-{seq:d}.jpg"


def picture(job: str, part: str, number: int, index: int, extension: str = "png") -> str:
    """A finished picture of an attempt."""
    return attempt(job, part, number) + f"{index:d}.{_checked(extension)}"


def grid(job: str, number: int, extension: str = "png") -> str:
    """A grid of a job's pictures, drawn by the portal; 0 is the one in front."""
    return f"jobs/{_checked(job)}/grid-{number:d}.{_checked(extension)}"


def job_answer(job: str) -> str:
    """The answer to a job that was sent to /inference, in the form of its request; written last."""
    return f"jobs/{_checked(job)}/answer.json"


def job_failure(job: str) -> str:
    """{"error"}: why a job that was sent to /inference has no answer."""
    return f"jobs/{_checked(job)}/failure.json"


def control_map(job: str, part: str, number: int, index: int) -> str:
    """Map number `index` that an attempt made of a ControlNet's picture."""
    return attempt(job, part, number) + f"map-{index:d}.png"


def result(job: str, part: str, number: int) -> str:
    """PartResult, written last: its presence means that everything it names is there."""
    return attempt(job, part, number) + "result.json"


def error(job: str, part: str, number: int) -> str:
    """Why an attempt failed."""
    return attempt(job, part, number) + "error.json"


def answer(endpoint: str, request: str, index: int, extension: str) -> str:
    """A picture of a direct call that is answered by location: endpoint and a name drawn for the request."""
    return f"answers/{_checked(endpoint)}/{_checked(request)}/{index:d}.{_checked(extension)}"


def trained(endpoint: str, run: str, file: str) -> str:
    """A file that a run of training behind an endpoint made: a name drawn for the run."""
    return f"training/{_checked(endpoint)}/{_checked(run)}/{_checked(file)}"


def archive(name: str) -> str:
    """A packed model: where the published guides put it in the bucket."""
    return f"stable-diffusion/{_checked(name)}.tar.gz"


def instance(endpoint: str, name: str) -> str:
    """A worker's state, written every 15 s."""
    return f"endpoints/{_checked(endpoint)}/{_checked(name)}.json"


def catalogue(endpoint: str) -> str:
    """The models an endpoint may use, as the portal publishes them for direct callers."""
    return f"catalogue/{_checked(endpoint)}.json"


def owner() -> str:
    """The mark of the database that looks after the store."""
    return "owner.txt"


def asset(asset_id: str) -> str:
    """An uploaded input."""
    return f"assets/{_checked(asset_id)}"


def task_result(task: str) -> str:
    """What a CPU task found, or why it failed; written last."""
    return f"tasks/{_checked(task)}/result.json"


def task_output(task: str) -> str:
    """The file a CPU task made."""
    return f"tasks/{_checked(task)}/output"


def task_progress(task: str) -> str:
    """How far a CPU task is, overwritten as it goes on."""
    return f"tasks/{_checked(task)}/progress.json"


def import_order(model_import: str, attempt: int) -> str:
    """The sealed order of one attempt at an import: read once, then removed."""
    return f"imports/{_checked(model_import)}/{attempt:d}"


def task_source(task: str) -> str:
    """The file a CPU task works on, where it was brought into the store for it."""
    return f"tasks/{_checked(task)}/source"


def task_run(task: str) -> str:
    """What the platform calls a running CPU task."""
    return f"tasks/{_checked(task)}/run"
