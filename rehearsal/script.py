"""A script that speaks the inference worker's contract: it takes signed parts, and leaves behind what a
worker would, in simulated time.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any, Protocol

from PIL import Image

from atelier.contract import keys, signing
from atelier.contract.errors import AtelierError, NotPermitted, WorkReturned
from atelier.contract.parts import (
    Action,
    JobStamp,
    PartControl,
    PartResult,
    PictureResult,
    ProgressState,
    ResolvedPart,
)
from rehearsal.account import Account
from rehearsal.variant import Answer


class Bucket:
    """A bucket of the account as a shelf: reached within the process, not over HTTP."""

    def __init__(self, account: Account, name: str) -> None:
        self._account = account
        self._name = name

    def get(self, key: str) -> bytes:
        """See Shelf."""
        return self._account.read(f"s3://{self._name}/{key}")

    def put(self, key: str, data: bytes) -> None:
        """See Shelf."""
        self._account.write(f"s3://{self._name}/{key}", data, "application/octet-stream")


class Shelf(Protocol):
    """What the script needs of the blob store."""

    def get(self, key: str) -> bytes:
        """The value. Raises LookupError."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store a value."""
        ...


class PaintingScript:
    """Paints each picture in one colour, drawn from its seed. `seconds` is what a part takes, `key` gives the
    key that jobs are signed with, `now` simulated unix seconds.
    """

    def __init__(
        self,
        shelf: Shelf,
        key: Callable[[], bytes],
        now: Callable[[], float],
        seconds: Callable[[ResolvedPart], float],
    ) -> None:
        self._shelf = shelf
        self._key = key
        self._now = now
        self._seconds = seconds
        self._began: dict[tuple[str, int], float] = {}

    def begin(self, body: bytes) -> float:
        """See Script. What is refused, or does not count any more, ends at once."""
        read = self._read(body)
        if isinstance(read, Answer) or self._overtaken(read[1]):
            return 0.0
        part, stamp = read
        self._began[stamp.part, stamp.attempt] = self._now()
        state = ProgressState(
            seq=1, phase="steps", step=1, steps=part.steps, pictures_done=0, pictures=part.batch_size
        )
        self._shelf.put(keys.progress(stamp.job, stamp.part, stamp.attempt), state.model_dump_json().encode())
        return self._seconds(part)

    def end(self, body: bytes) -> Answer:
        """See Script."""
        read = self._read(body)
        if isinstance(read, Answer):
            return read
        part, stamp = read
        cancelled = self._overtaken(stamp)
        pictures = (
            () if cancelled else tuple(self._painted(part, stamp, index) for index in range(part.batch_size))
        )
        result = PartResult(
            job=stamp.job,
            part=stamp.part,
            attempt=stamp.attempt,
            pictures=pictures,
            cancelled=cancelled,
            timeline={"steps": self._began.pop((stamp.part, stamp.attempt), self._now())},
        )
        data = result.model_dump_json().encode()
        self._shelf.put(keys.result(stamp.job, stamp.part, stamp.attempt), data)
        return Answer(200, json.dumps({"job": stamp.job, "part": stamp.part}).encode())

    def give_up(self, body: bytes) -> Answer:
        """See Script."""
        read = self._read(body)
        return read if isinstance(read, Answer) else _failed(WorkReturned("This worker is draining."))

    def _read(self, body: bytes) -> tuple[ResolvedPart, JobStamp] | Answer:
        said: dict[str, Any] = json.loads(body)
        if not signing.verify(said, self._key()):
            return _failed(NotPermitted("The `job` of this body has no valid signature of this deployment."))
        return ResolvedPart.model_validate(said["resolved"]), JobStamp.model_validate(said["job"])

    def _overtaken(self, stamp: JobStamp) -> bool:
        """Whether the part's control says that this attempt does not count, or is to be discarded."""
        try:
            control = PartControl.model_validate_json(
                self._shelf.get(keys.part_control(stamp.job, stamp.part))
            )
        except LookupError:
            return False
        return control.attempt != stamp.attempt or control.action is Action.CANCEL

    def _painted(self, part: ResolvedPart, stamp: JobStamp, index: int) -> PictureResult:
        seed = part.seeds[index]
        colour = (seed % 256, seed // 256 % 256, seed // 65536 % 256)
        file = io.BytesIO()
        Image.new("RGB", (part.width, part.height), colour).save(file, "PNG")
        data = file.getvalue()
        key = keys.picture(stamp.job, stamp.part, stamp.attempt, index)
        self._shelf.put(key, data)
        return PictureResult(
            index=index,
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            width=part.width,
            height=part.height,
            seed=seed,
            subseed=part.subseeds[index],
            infotext=f"{part.prompt}\nSteps: {part.steps}, Seed: {seed}",
            recipe_hash=part.recipe_hash,
        )


def _failed(error: AtelierError) -> Answer:
    return Answer(error.http_status, json.dumps({"error": error.body()}).encode())
