"""Doubles for tests of the worker: a clock that is set, a store that counts, an engine with a script."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from atelier.contract import signing
from atelier.contract.errors import AtelierError
from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import Action, InstanceState, JobStamp, ResolvedPart
from atelier.storage.base import BlobStat
from atelier.storage.filesystem import FilesystemBlobStore

KEY = b"k" * 32
ENDPOINT = "local"


class SetClock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class CountingStore(FilesystemBlobStore):
    """Plain files, with a note of every write and read and the time of it; refuses while `broken` is set."""

    def __init__(self, root: Path, clock: SetClock) -> None:
        super().__init__(root)
        self.clock = clock
        self.writes: list[tuple[float, str]] = []
        self.conditional_reads: list[tuple[float, str]] = []
        self.broken: AtelierError | None = None

    def put(self, key: str, data: bytes | Path, *, content_type: str | None = None) -> BlobStat:
        self.writes.append((self.clock.now, key))
        if self.broken is not None:
            raise self.broken
        return super().put(key, data, content_type=content_type)

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        self.conditional_reads.append((self.clock.now, key))
        if self.broken is not None:
            raise self.broken
        return super().get_if_changed(key, etag)


@dataclass
class ScriptedProgress:
    phase: str = "loading"
    step: int = 0
    steps: int = 20
    pictures_done: int = 0
    pictures: int = 1
    version: int = 0


@dataclass
class ScriptedPicture:
    index: int
    pixels: Any
    seed: int
    subseed: int
    complete: bool = True


@dataclass
class ScriptedResult:
    pictures: list[ScriptedPicture]
    stopped: bool = False
    timeline: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    maps: tuple[Any, ...] = ()


class ScriptedHandle:
    """A part whose end the test decides with `finish` or `fail`; a stop or cancel ends it at once."""

    def __init__(self, part: ResolvedPart) -> None:
        self.part = part
        self.actions: list[Action] = []
        self.now = ScriptedProgress(pictures=part.batch_size, steps=part.steps)
        self.picture: Any = None
        self._done = threading.Event()
        self._callbacks: list[Callable[[Any], None]] = []
        self._result: ScriptedResult | Exception | None = None

    def progress(self) -> ScriptedProgress:
        return self.now

    def preview(self) -> Any:
        return self.picture

    def act(self, action: Action) -> None:
        self.actions.append(action)
        if action in (Action.STOP_NOW, Action.CANCEL) and not self._done.is_set():
            self.finish(stopped=True)

    def further(self, **changes: Any) -> None:
        self.now = ScriptedProgress(**{**vars(self.now), **changes, "version": self.now.version + 1})

    def finish(self, *, stopped: bool = False) -> None:
        shape = (self.part.height, self.part.width, 3)
        pictures = [
            ScriptedPicture(index, numpy.full(shape, seed % 256, numpy.uint8), seed, subseed, not stopped)
            for index, (seed, subseed) in enumerate(zip(self.part.seeds, self.part.subseeds, strict=True))
        ]
        self._end(ScriptedResult(pictures, stopped, {"loading": 1.0, "steps": 2.0, "decoding": 3.0}))

    def fail(self, error: Exception) -> None:
        self._end(error)

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self._callbacks.append(call)
        if self._done.is_set():
            call(self)

    def result(self, timeout: float | None = None) -> ScriptedResult:
        assert self._done.wait(timeout)
        if isinstance(self._result, Exception):
            raise self._result
        assert self._result is not None
        return self._result

    def _end(self, result: ScriptedResult | Exception) -> None:
        self._result = result
        self._done.set()
        for call in self._callbacks:
            call(self)


class ScriptedEngine:
    """Takes parts and hands them to the test; with `at_once` it finishes each as it comes."""

    def __init__(self, *, at_once: bool = False, refuses: AtelierError | None = None) -> None:
        self.at_once, self.refuses = at_once, refuses
        self.handles: list[ScriptedHandle] = []
        self.submitted = threading.Event()

    def submit(self, part: ResolvedPart) -> ScriptedHandle:
        if self.refuses is not None:
            raise self.refuses
        handle = ScriptedHandle(part)
        self.handles.append(handle)
        if self.at_once:
            handle.finish()
        self.submitted.set()
        return handle


def a_checkpoint(**changes: Any) -> ModelRef:
    """A registered checkpoint that no test opens."""
    values: dict[str, Any] = {
        "kind": ModelKind.CHECKPOINT,
        "name": "tiny",
        "filename": "tiny.safetensors",
        "sha256": "a" * 64,
        "blob_sha256": "b" * 64,
        "size": 4,
        "short_hash": "a" * 10,
    }
    return ModelRef(**{**values, **changes})


def a_part(**changes: Any) -> ResolvedPart:
    """A small part."""
    values: dict[str, Any] = {
        "checkpoint": a_checkpoint(),
        "prompt": "a red circle",
        "negative_prompt": "",
        "sampler": "Euler",
        "scheduler": "Automatic",
        "steps": 20,
        "cfg_scale": 7.0,
        "width": 64,
        "height": 64,
        "seeds": (1, 2),
        "subseeds": (5, 6),
    }
    return ResolvedPart(**{**values, **changes})


def a_stamp(**changes: Any) -> JobStamp:
    """The stamp of the first attempt of a part."""
    return JobStamp(**{"job": "j1", "part": "p1", "attempt": 1, "endpoint": ENDPOINT, **changes})


def a_body(part: ResolvedPart, stamp: JobStamp, key: bytes = KEY) -> dict[str, Any]:
    """The signed body that the portal would send."""
    unsigned = {
        "task": part.task.value,
        "model": part.checkpoint.filename,
        "resolved": part.model_dump(mode="json"),
        "job": stamp.model_dump(mode="json", exclude={"signature"}),
    }
    return signing.sign(unsigned, key)


def a_state(**changes: Any) -> InstanceState:
    """What a worker might say of itself."""
    values = {"endpoint": ENDPOINT, "instance": "w1", "engine": "Atelier 0", "status": "ready", "at": 0.0}
    return InstanceState(**{**values, **changes})
