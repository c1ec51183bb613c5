"""The executor: one thread that owns the networks. Each tick it serves one batch of rows, then decodes a
little.

Pictures join and leave between ticks. Parts come in prepared (their weights are in host memory) through
`admit`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from atelier.contract.errors import AtelierError, InternalError, OutOfMemory
from atelier.contract.parts import Action
from workers.engine.decoding import DecodeQueue
from workers.engine.handle import EngineResult, PartRun
from workers.engine.models import PartModels
from workers.engine.networks_at_work import NetworksAtWork
from workers.engine.picture import PictureRun
from workers.engine.preparation import recipes
from workers.engine.rows import BatchKey, Row, key_of
from workers.engine.slots import Slot
from workers.engine.turns import Turns

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Live:
    """A part that has joined, with what its pictures need."""

    run: PartRun
    models: PartModels
    waiting: deque[PictureRun] = field(default_factory=deque)
    running: list[PictureRun] = field(default_factory=list)
    decoding: int = 0


@dataclass
class Counters:
    """What the executor has done since it started."""

    forwards: int = 0
    rows: int = 0
    steps: int = 0
    busy_seconds: float = 0.0


class Executor:
    """Runs parts to their results. Public methods may be called from any thread; the rest is the thread's
    own.
    """

    def __init__(self, networks: NetworksAtWork, turns: Turns, *, most_rows: int, memory: int) -> None:
        self._networks, self._turns = networks, turns
        self._most_rows, self._memory = most_rows, memory
        self.counters = Counters()
        self._changed = threading.Condition()
        self._inbox: deque[tuple[PartRun, PartModels]] = deque()
        self._live: list[_Live] = []
        self._decodes = DecodeQueue()
        self._closing = False
        self._woken = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def admit(self, run: PartRun, models: PartModels) -> None:
        """Let a part join at the next tick."""
        with self._changed:
            self._inbox.append((run, models))
            self._changed.notify()

    def wake(self) -> None:
        """Look at the actions, even when idle."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def close(self, timeout: float) -> None:
        """Finish what has joined, then end the thread; waits at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def live_rows(self) -> int:
        """Rows asked for and not yet served."""
        return sum(len(picture.open_rows) for live in list(self._live) for picture in list(live.running))

    def _work(self) -> None:
        with torch.inference_mode():
            while self._wait():
                begun = time.perf_counter()
                try:
                    self._tick()
                except (
                    Exception
                ) as error:  # a defect outside any part: everything live fails, the engine goes on
                    log.exception("the engine's tick failed")
                    for live in list(self._live):
                        self._fail(live, InternalError(f"The engine failed: {error}"))
                self.counters.busy_seconds += time.perf_counter() - begun

    def _wait(self) -> bool:
        """Sleep until there is something to do. False when the executor is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._live or self._closing or self._woken)
            self._woken = False
            return bool(self._inbox or self._live or not self._closing)

    def _tick(self) -> None:
        self._join()
        for live in list(self._live):
            self._heed(live)
            self._start_waiting(live)
        self._serve()
        self._serve_between()
        self._decode()
        for live in [each for each in self._live if not (each.waiting or each.running or each.decoding)]:
            self._conclude(live)
        self._networks.improve(lambda: bool(self._live or self._inbox))

    def _join(self) -> None:
        with self._changed:
            arrived, self._inbox = list(self._inbox), deque()
        for run, models in arrived:
            live = _Live(run, models)
            self._live.append(live)
            self._guard(live, partial(self._prepare, live))

    def _prepare(self, live: _Live) -> None:
        run, models = live.run, live.models
        if run.action is None:
            run.enter("encoding")
            run.preview_map = self._networks.preview_map(models.base)
            text_of = partial(self._networks.encoder, run.part.settings, models.embeddings)
            run.warnings += [*models.warnings, *_unfit(models)]
            upload, itemsize = self._networks.device.upload, self._networks.itemsize
            live.waiting.extend(recipes(run.part, models, text_of, upload, itemsize))
        else:
            run.dropped = run.part.batch_size

    def _guard(self, live: _Live, do: Callable[[], None]) -> None:
        """Run something for one part; its failure is that part's alone."""
        try:
            do()
        except AtelierError as error:
            self._fail(live, error)
        except Exception as error:  # noqa: BLE001  # logged, as the part it belongs to
            live.run.context.copy().run(log.exception, "part failed in the engine")
            self._fail(live, InternalError(f"The engine failed on this picture: {error}"))

    def _heed(self, live: _Live) -> None:
        """Do what was asked of the part."""
        action = live.run.action
        if action is None:
            return
        if action is not Action.SKIP or not live.running:
            live.run.dropped += len(live.waiting)
            live.waiting.clear()
        if action is Action.FINISH_CURRENT:
            return
        for picture in live.running:
            if action is not Action.CANCEL and picture.stop():
                self._finish(live, picture)
            else:
                live.run.dropped += 1
        live.running.clear()
        if action is Action.SKIP and live.waiting:
            live.run.skipped()
        if action is Action.CANCEL:
            self._decodes.drop(live.run)
            live.decoding = 0

    def _start_waiting(self, live: _Live) -> None:
        while live.waiting:
            used = sum(picture.footprint for each in self._live for picture in each.running)
            used += self._decodes.footprint
            if used and used + live.waiting[0].footprint > self._memory - self._networks.recorded:
                return
            picture = live.waiting.popleft()
            live.run.enter("steps")
            live.run.runs.append(picture)
            live.running.append(picture)
            self._guard(live, partial(self._start, live, picture))
            if live not in self._live:
                return

    def _start(self, live: _Live, picture: PictureRun) -> None:
        picture.start(time.monotonic())
        self._ended(live, picture)

    def _serve(self) -> None:
        """One forward for the group whose turn it is."""
        groups: dict[BatchKey, list[tuple[_Live, PictureRun, int]]] = {}
        for live in self._live:
            for picture in live.running:
                for number in picture.open_rows:
                    key = key_of(picture.asked[number], alone=picture.sensitive)
                    groups.setdefault(key, []).append((live, picture, number))
        if not groups:
            return
        waiting = {key: min(picture.asked_at for _, picture, _ in members) for key, members in groups.items()}
        models = {key.weights: members[0][0].models.of_unet(key.weights) for key, members in groups.items()}
        turn = self._turns.next(waiting, *self._networks.choices(models), time.monotonic())
        room = self._networks.device.rows_together(turn.key.height, turn.key.width)
        members = _first(groups[turn.key], min(room, self._most_rows), self._most_rows)
        slot = self._networks.unets.take(models[turn.key.weights].checkpoint.unet, turn.evict)
        self._forward(slot, members)

    def _serve_between(self) -> None:
        """Answer what the pictures ask of an autoencoder between two passes: one question, all of them when
        no rows wait.
        """
        asking = [(live, each) for live in self._live for each in live.running if each.between is not None]
        for live, picture in sorted(asking, key=lambda each: each[1].asked_at):
            if live not in self._live or picture not in live.running:
                continue  # its part has failed on the way
            self._guard(live, partial(self._answer_between, live, picture))
            if any(each.asked for other in self._live for each in other.running):
                return

    def _answer_between(self, live: _Live, picture: PictureRun) -> None:
        question = picture.between
        assert question is not None
        models = live.models.of_vae(question.vae)
        networks = self._networks
        finer = networks.finer(live.run.part.settings)
        answer, again = networks.between(models, question, finer)
        if again:
            live.run.warn(networks.precision_warning(finer))
        picture.answer_between(answer, time.monotonic())
        self._ended(live, picture)

    def _forward(self, slot: Slot, members: list[tuple[_Live, PictureRun, int]]) -> None:
        rows: list[Row] = [picture.asked[number] for _, picture, number in members]
        try:
            predictions = self._networks.predict(slot, rows)
        except Exception as error:  # noqa: BLE001  # the pictures fail, the executor goes on
            self._forward_failed(slot, members, error)
            return
        slot.forwards_since_fill += 1
        self._networks.device.keep_pace()
        self.counters.forwards += 1
        self.counters.rows += len(rows)
        now = time.monotonic()
        for (live, picture, number), prediction in zip(members, predictions, strict=True):
            if live in self._live:
                self._guard(live, partial(self._answer, live, picture, number, prediction, now))

    def _answer(
        self, live: _Live, picture: PictureRun, number: int, prediction: torch.Tensor, now: float
    ) -> None:
        before = picture.step
        picture.answer(number, prediction, now)
        self.counters.steps += picture.step - before
        self._ended(live, picture)

    def _ended(self, live: _Live, picture: PictureRun) -> None:
        """A picture that is complete goes on to the decoder."""
        if picture.complete:
            live.running.remove(picture)
            self._finish(live, picture)

    def _forward_failed(
        self, slot: Slot, members: list[tuple[_Live, PictureRun, int]], error: Exception
    ) -> None:
        """A batch failed: try its parts one by one, so that only the guilty one fails."""
        parts = list(dict.fromkeys(live for live, _, _ in members))
        if len(parts) == 1:
            parts[0].run.context.copy().run(log.error, "forward failed", exc_info=error)
            self._fail(
                parts[0],
                error if isinstance(error, AtelierError) else InternalError(f"The network failed: {error}"),
            )
            return
        for part in parts:
            self._forward(slot, [member for member in members if member[0] is part])

    def _finish(self, live: _Live, picture: PictureRun) -> None:
        live.decoding += 1
        self._decodes.put(live.run, live.models.of_unet(picture.weights), picture)

    def _decode(self) -> None:
        """Begin to decode one batch and take what is decoded; all of them when there is nothing else to
        do.
        """
        while True:
            # a picture without room may be waiting for what is decoded
            stepping = bool(self._inbox) or any(live.running for live in self._live)
            decoded = self._decodes.next(self._networks, wait=not stepping)
            for run, error in decoded:
                for live in [each for each in self._live if each.run is run]:
                    live.decoding -= 1
                    if error is not None:
                        self._guard(live, partial(_raise, error))
            if not decoded or stepping or any(live.waiting for live in self._live):
                return

    def _conclude(self, live: _Live) -> None:
        run = live.run
        self._live.remove(live)
        cancelled = run.action is Action.CANCEL
        pictures = [] if cancelled else sorted(run.finished, key=lambda picture: picture.index)
        stopped = run.action in (Action.STOP_NOW, Action.CANCEL) or bool(
            run.dropped and run.action is Action.FINISH_CURRENT
        )
        run.enter("done")
        run.timeline.pop("done")
        run.future.set_result(
            EngineResult(
                pictures,
                stopped,
                dict(run.timeline),
                list(run.warnings),
                cancelled,
                run.maps if pictures else (),
            )
        )

    def _fail(self, live: _Live, error: AtelierError) -> None:
        if live in self._live:
            self._live.remove(live)
            self._decodes.drop(live.run)
            live.run.enter("failed")
            live.run.future.set_exception(error)


def _raise(error: Exception) -> None:
    if isinstance(error, torch.OutOfMemoryError):
        raise OutOfMemory("The worker's memory did not suffice to decode this picture. Make it smaller.")
    raise error


def _unfit(models: PartModels) -> list[str]:
    """What is to be said of embeddings that do not fit the part's checkpoint."""
    widths = " and ".join(str(width) for width in models.base.text_widths)
    return [
        f"The embedding {each.name} is {each.vectors.shape[1]} wide and this checkpoint's text encoder "
        f"{widths}: its name was read as words."
        for each in models.embeddings
        if not models.base.fits(each)
    ]


def _first(
    members: list[tuple[_Live, PictureRun, int]], room: int, most: int
) -> list[tuple[_Live, PictureRun, int]]:
    """At most `room` rows, of the pictures that have waited longest; a picture's rows stay together, beyond
    `room` too, unless they alone are more than `most`.

    The order of the members is kept, so that an unchanged batch is the same batch in the next tick.
    """
    if len(members) <= room:
        return members
    chosen: list[tuple[_Live, PictureRun, int]] = []
    for picture in sorted(
        {id(member[1]): member[1] for member in members}.values(), key=lambda each: each.asked_at
    ):
        rows = [member for member in members if member[1] is picture]
        if len(chosen) + len(rows) > room:
            chosen = chosen or rows[:most]
            break
        chosen += rows
    wanted = {(id(picture), number) for _, picture, number in chosen}
    return [member for member in members if (id(member[1]), member[2]) in wanted]
