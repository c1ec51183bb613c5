"""From a resolved part to stored pictures: submit to the engine, tell of it, encode and store off the
engine's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from atelier import infotext, logs
from atelier.contract import keys
from atelier.contract.errors import AtelierError, InternalError, WorkReturned
from atelier.contract.models import ModelRef
from atelier.contract.parts import (
    Action,
    JobStamp,
    MapResult,
    PartControl,
    PartResult,
    PictureFormat,
    PictureResult,
    ResolvedPart,
)
from atelier.picturefile import Encoded
from atelier.storage.base import BlobStore
from workers.inference.pictures import encode, encode_jpeg
from workers.runtime import store as documents
from workers.runtime.clock import Clock, SystemClock
from workers.runtime.side_thread import Progress, SideThread

if TYPE_CHECKING:
    from workers.engine import Engine, EnginePicture, EngineResult, PartHandle
    from workers.engine.controls import ControlMap

SUPERSEDED = "superseded"
"""What stands in place of a result's key when the attempt no longer counts."""
_AT_ONCE = 8
"""Threads that encode, hash and store."""

Value = TypeVar("Value")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """A finished picture of a direct call."""

    infotext: str
    file: Encoded


@dataclass(frozen=True)
class Made:
    """What a direct call made, in the order of its parts, and the engine's warnings."""

    pictures: list[Shown]
    warnings: list[str]
    maps: list[Shown] = field(default_factory=list)
    """What ControlNets' preprocessors made, without infotexts."""


@dataclass(frozen=True)
class _Stage:
    """Progress as it is told: the engine's, until the engine is done with the part."""

    phase: str
    step: int
    steps: int
    pictures_done: int
    pictures: int
    version: object


class Work:
    """A part in the engine, as the side thread sees it, and what was asked of it."""

    def __init__(self, handle: PartHandle) -> None:
        self.handle = handle
        self.cancelled = False
        self.superseded = False
        self.given_up = False
        self.storing = False

    def progress(self) -> Progress:
        """See Watched."""
        now = self.handle.progress()
        if not self.storing:
            return now
        version = ("storing", now.version)
        return _Stage("storing", now.steps, now.steps, now.pictures_done, now.pictures, version)

    def preview_jpeg(self) -> bytes | None:
        """See Watched."""
        pixels = self.handle.preview()
        return None if pixels is None else encode_jpeg(pixels)

    def act(self, action: Action, *, superseded: bool = False) -> None:
        """See Watched."""
        self.superseded |= superseded
        self.cancelled |= action is Action.CANCEL
        log.info("%s a part", action)
        self.handle.act(action)

    def give_up(self) -> None:
        """The worker has to go: the attempt ends as a failure that may be tried again."""
        self.given_up = True
        self.handle.act(Action.CANCEL)


Hold = Callable[[Sequence[ModelRef]], Callable[[], None]]
"""Keeps the files of models where they are until what it returns is called."""


def _held_by_nobody(_models: Sequence[ModelRef]) -> Callable[[], None]:
    return lambda: None


class Executor:
    """Runs parts; belongs to one event loop. The same attempt asked for twice is run once."""

    def __init__(
        self,
        engine: Engine,
        store: BlobStore,
        side: SideThread,
        *,
        clock: Clock | None = None,
        hold: Hold = _held_by_nobody,
    ) -> None:
        self._engine, self._store, self._side, self._hold = engine, store, side, hold
        self._clock = clock or SystemClock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="store")
        self._attempts: dict[tuple[str, str, int], asyncio.Task[dict[str, Any]]] = {}
        self._works: set[Work] = set()

    async def run_job(self, part: ResolvedPart, stamp: JobStamp) -> dict[str, Any]:
        """Run an attempt and store what it makes; the answer names result.json. A caller that leaves does not
        end it.
        """
        name = (stamp.job, stamp.part, stamp.attempt)
        logs.note(job_id=stamp.job, part_id=stamp.part, attempt=stamp.attempt)
        task = self._attempts.get(name)
        if task is None:
            task = self._attempts[name] = asyncio.create_task(self._attempt(part, stamp))
            task.add_done_callback(lambda _: self._attempts.pop(name, None))
        return await asyncio.shield(task)

    async def run_direct(self, parts: Sequence[ResolvedPart], gone: asyncio.Event) -> Made:
        """Run `parts` side by side and give their pictures in order. When the caller leaves, the engine
        stops.
        """
        works: list[Work] = []
        leaving = asyncio.create_task(_cancel_when_gone(gone, works))
        try:
            for part in parts:
                works.append(await self._submitted(part))  # noqa: PERF401  # known also if the next one fails
            results = await asyncio.gather(*(self._finished(work) for work in works))
        except BaseException:
            for work in works:
                work.act(Action.CANCEL)
            raise
        finally:
            leaving.cancel()
            self._works -= set(works)
        encodes = [
            self._off_loop(encoded, part, picture)
            for part, result in zip(parts, results, strict=True)
            for picture in result.pictures
        ]
        maps = [self._off_loop(_map, each) for result in results for each in result.maps]
        warnings = [text for result in results for text in result.warnings]
        return Made(await asyncio.gather(*encodes), warnings, await asyncio.gather(*maps))

    def give_up(self) -> None:
        """End everything that runs, soon and as a failure that may be tried again."""
        for work in list(self._works):
            work.give_up()

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def _attempt(self, part: ResolvedPart, stamp: JobStamp) -> dict[str, Any]:
        """One attempt from its control object to result.json or error.json."""
        with (
            logs.bound(job_id=stamp.job, part_id=stamp.part, attempt=stamp.attempt),
            logs.unsaid(*_prompts(part)),
        ):
            return await self._decided(part, stamp)

    async def _decided(self, part: ResolvedPart, stamp: JobStamp) -> dict[str, Any]:
        received = self._clock.time()
        log.info("part received", extra={"pictures": part.batch_size})
        known = await self._off_loop(self._already_decided, stamp)
        if known is not None:
            return _answer(stamp, known)
        try:
            return _answer(stamp, await self._computed(part, stamp, received))
        except AtelierError as error:
            log.warning("the attempt failed: %s", error.code)
            await self._off_loop(self._store_error, stamp, error)
            raise
        except Exception as error:
            log.exception("the attempt met a defect")
            told = InternalError("The worker met a defect while it made this picture. Its log says which.")
            await self._off_loop(self._store_error, stamp, told)
            raise told from error

    def _already_decided(self, stamp: JobStamp) -> str | None:
        """The answer that needs no engine: a result that is there, an attempt that does not count, a part
        stopped before it began.
        """
        key = keys.result(stamp.job, stamp.part, stamp.attempt)
        if self._store.stat(key) is not None:
            return key
        control = documents.read(self._store, keys.part_control(stamp.job, stamp.part), PartControl)
        if control is None or control.attempt != stamp.attempt or control.action is Action.CANCEL:
            log.info("the attempt does not count any more")
            return SUPERSEDED
        if control.action is None:
            return None
        return self._store_result(stamp, (), stopped=True, cancelled=False, timeline={}, warnings=())

    async def _computed(self, part: ResolvedPart, stamp: JobStamp, received: float) -> str:
        work = await self._submitted(part)
        watch = self._side.watch(stamp, work)
        try:
            result = await self._finished(work)
            if work.superseded:
                return SUPERSEDED
            return await self._stored(part, stamp, work, result, received)
        finally:
            self._works.discard(work)
            await self._off_loop(self._side.release, watch)

    async def _submitted(self, part: ResolvedPart) -> Work:
        release = self._hold(part.models)
        try:
            work = Work(await self._off_loop(self._engine.submit, part))
        except BaseException:
            release()
            raise
        work.handle.add_done_callback(lambda *_: release())
        self._works.add(work)
        return work

    async def _finished(self, work: Work) -> EngineResult:
        """The engine's result, waited for without holding a thread. Raises WorkReturned for work that
        was given up.
        """
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        work.handle.add_done_callback(tell)
        await done.wait()
        if work.given_up:
            raise WorkReturned("The worker was shut down before the picture was done.")
        return work.handle.result(timeout=0)

    async def _stored(
        self, part: ResolvedPart, stamp: JobStamp, work: Work, result: EngineResult, received: float
    ) -> str:
        """Store the pictures side by side, then result.json; a cancelled part keeps none."""
        began = self._clock.time()
        work.storing = True
        cancelled = work.cancelled
        kept = () if cancelled else result.pictures
        stores = [self._off_loop(self._store_picture, part, stamp, picture) for picture in kept]
        pictures = tuple(await asyncio.gather(*stores))
        drawn = () if cancelled else result.maps
        maps = [self._off_loop(self._store_map, stamp, number, each) for number, each in enumerate(drawn)]
        stored = tuple(await asyncio.gather(*maps))
        timeline = {"received": received, **result.timeline, "storing": began}
        return await self._off_loop(
            lambda: self._store_result(
                stamp,
                pictures,
                maps=stored,
                stopped=result.stopped,
                cancelled=cancelled,
                timeline=timeline,
                warnings=result.warnings,
            )
        )

    def _store_picture(self, part: ResolvedPart, stamp: JobStamp, picture: EnginePicture) -> PictureResult:
        text = infotext.render(part, picture.index)
        data, media_type, extension = encode(picture.pixels, part.format, text, part.recipe_hash)
        key = keys.picture(stamp.job, stamp.part, stamp.attempt, picture.index, extension)
        self._store.put(key, data, content_type=media_type)
        height, width = picture.pixels.shape[:2]
        return PictureResult(
            index=picture.index,
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            width=width,
            height=height,
            seed=picture.seed,
            subseed=picture.subseed,
            infotext=text,
            recipe_hash=part.recipe_hash,
            complete=picture.complete,
        )

    def _store_map(self, stamp: JobStamp, number: int, made: ControlMap) -> MapResult:
        data = _png(made)
        key = keys.control_map(stamp.job, stamp.part, stamp.attempt, number)
        self._store.put(key, data.data, content_type=data.media_type)
        height, width = made.pixels.shape[:2]
        digest = hashlib.sha256(data.data).hexdigest()
        return MapResult(
            unit=made.unit, key=key, sha256=digest, size=len(data.data), width=width, height=height
        )

    def _store_result(
        self,
        stamp: JobStamp,
        pictures: Sequence[PictureResult],
        *,
        maps: Sequence[MapResult] = (),
        stopped: bool,
        cancelled: bool,
        timeline: dict[str, float],
        warnings: Sequence[str],
    ) -> str:
        key = keys.result(stamp.job, stamp.part, stamp.attempt)
        result = PartResult(
            job=stamp.job,
            part=stamp.part,
            attempt=stamp.attempt,
            pictures=tuple(pictures),
            maps=tuple(maps),
            stopped=stopped,
            cancelled=cancelled,
            warnings=tuple(warnings),
            timeline={**timeline, "stored": self._clock.time()},
        )
        documents.write(self._store, key, result)
        log.info(
            "result stored", extra={"pictures": len(pictures), "stopped": stopped, "cancelled": cancelled}
        )
        return key

    def _store_error(self, stamp: JobStamp, error: AtelierError) -> None:
        key, data = keys.error(stamp.job, stamp.part, stamp.attempt), json.dumps({"error": error.body()})
        try:
            self._store.put(key, data.encode(), content_type="application/json")
        except AtelierError as refused:
            log.warning("the attempt's error was not stored: %s", refused.message)

    async def _off_loop(self, work: Callable[..., Value], *arguments: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, logs.carried(work), *arguments)


def encoded(part: ResolvedPart, picture: EnginePicture) -> Shown:
    """A picture of `part` as a file."""
    text = infotext.render(part, picture.index)
    return Shown(text, encode(picture.pixels, part.format, text, part.recipe_hash))


def _png(made: ControlMap) -> Encoded:
    """A map as a PNG file."""
    return encode(made.pixels, PictureFormat(with_infotext=False), "", "")


def _map(made: ControlMap) -> Shown:
    return Shown("", _png(made))


def _prompts(part: ResolvedPart) -> tuple[str, ...]:
    """What somebody wrote for the part's passes."""
    second = part.hires
    return (
        part.prompt,
        part.negative_prompt,
        *((second.prompt, second.negative_prompt) if second is not None else ()),
    )


async def _cancel_when_gone(gone: asyncio.Event, works: Sequence[Work]) -> None:
    await gone.wait()
    for work in works:
        work.act(Action.CANCEL)


def _answer(stamp: JobStamp, result: str) -> dict[str, Any]:
    return {"job": stamp.job, "part": stamp.part, "attempt": stamp.attempt, "result": result}
