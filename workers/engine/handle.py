"""A part as its submitter sees it: progress, previews, actions, the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import torch

from atelier.contract.parts import Action, ResolvedPart
from workers.engine.controls import ControlMap
from workers.engine.decode import Pixels
from workers.engine.picture import PictureRun
from workers.engine.preview import contact_sheet


@dataclass(frozen=True)
class EnginePicture:
    """A finished picture: uint8 [H, W, 3]. `complete` is False where it was stopped before its last step."""

    index: int
    pixels: Pixels
    seed: int
    subseed: int
    complete: bool


@dataclass(frozen=True)
class EngineResult:
    """What a part came to. `timeline`: phase -> unix seconds at which it began. `cancelled`: everything was
    discarded.
    """

    pictures: list[EnginePicture]
    stopped: bool
    timeline: dict[str, float]
    warnings: list[str]
    cancelled: bool = False
    maps: tuple[ControlMap, ...] = ()
    """What ControlNets' preprocessors made, as far as it is to be shown."""


@dataclass(frozen=True)
class EngineProgress:
    """How far a part is: `step` of `steps`, the mean of its pictures. `version` grows with every change. On a
    GPU steps are counted when they are asked for, which is at most two before they are done.
    """

    phase: str
    step: int
    steps: int
    pictures_done: int
    pictures: int
    version: int


@dataclass(eq=False)
class PartRun:
    """A part inside the engine. The executor's thread writes it, except `action`; handles read."""

    part: ResolvedPart
    phase: str = "queued"
    version: int = 0
    timeline: dict[str, float] = field(default_factory=dict)
    action: Action | None = None
    runs: list[PictureRun] = field(default_factory=list)
    finished: list[EnginePicture] = field(default_factory=list)
    dropped: int = 0
    preview_map: Callable[[torch.Tensor], Pixels] | None = None
    """Makes an approximate picture of a latent."""
    warnings: list[str] = field(default_factory=list)
    maps: tuple[ControlMap, ...] = ()
    future: Future[EngineResult] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)
    """What whoever handed the part in calls itself: lines of the log about the part are written in it."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, phase: str) -> None:
        """The part reaches a phase, for the first time where the timeline is concerned."""
        self.phase = phase
        self.timeline.setdefault(phase, time.time())
        self.version += 1

    def warn(self, text: str) -> None:
        """Tell something with the result, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def ask(self, action: Action) -> None:
        """A stronger action replaces a weaker one, never the reverse."""
        with self._lock:
            if self.action is None or _STRENGTH[action] > _STRENGTH[self.action]:
                self.action = action

    def skipped(self) -> None:
        """The skip that was asked for is done; what was asked for meanwhile stands."""
        with self._lock:
            if self.action is Action.SKIP:
                self.action = None


_STRENGTH = {Action.FINISH_CURRENT: 0, Action.SKIP: 1, Action.STOP_NOW: 2, Action.CANCEL: 3}


class PartHandle:
    """What `Engine.submit` gives. Every method may be called from any thread."""

    def __init__(self, run: PartRun, wake: Callable[[], None]) -> None:
        self._run, self._wake = run, wake

    def act(self, action: Action) -> None:
        """Ask the part to end; heeded between two steps. A stronger action replaces a weaker one, never the
        reverse.
        """
        self._run.ask(action)
        self._wake()

    def progress(self) -> EngineProgress:
        """How far the part is now."""
        run = self._run
        runs = list(run.runs)
        steps = max((each.steps for each in runs), default=run.part.steps)
        made = [steps if each.latent is not None else min(each.step, steps) for each in runs]
        # a picture that waits for room has made none
        step = sum(made) // run.part.batch_size
        version = run.version + sum(each.step for each in runs)
        return EngineProgress(
            run.phase, min(step, steps), steps, len(run.finished), run.part.batch_size, version
        )

    def preview(self) -> Pixels | None:
        """Approximate picture of what is there: uint8 [H, W, 3], all pictures of the part on one sheet. None
        before the first step.
        """
        convert = self._run.preview_map
        latents = [
            latent for latent in (each.denoised for each in list(self._run.runs)) if latent is not None
        ]
        if convert is None or not latents:
            return None
        # between two passes of hires fix the pictures of a part differ in size: those that are further show
        largest = max((latent.shape for latent in latents), key=lambda shape: shape[-1] * shape[-2])
        latents = [latent for latent in latents if latent.shape == largest]
        return contact_sheet([convert(latent) for latent in latents])

    def add_done_callback(self, call: Callable[[PartHandle], None]) -> None:
        """Call `call(handle)` when the result is there: at once, or later on the engine's thread (so it must
        be short).
        """
        self._run.future.add_done_callback(lambda _: call(self))

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._run.future.done()

    def result(self, timeout: float | None = None) -> EngineResult:
        """The result, waited for at most `timeout` seconds (TimeoutError). Raises the AtelierError that ended
        the part.
        """
        return self._run.future.result(timeout)
