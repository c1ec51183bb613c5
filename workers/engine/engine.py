"""The engine: parts in, pictures out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch

from atelier.contract.errors import AtelierError, InternalError, WorkReturned
from atelier.contract.models import ModelRef
from atelier.contract.parts import NetworkUse, ResolvedPart
from workers.engine import annotators, cuda_graphs, memory, samplers
from workers.engine.annotators import OpenAnnotator
from workers.engine.controls import OpenInput, Units, no_inputs
from workers.engine.executor import Executor
from workers.engine.handle import EngineResult, PartHandle, PartRun
from workers.engine.host_cache import HostCache
from workers.engine.loader.checkpoint import Checkpoint, ModelFile, Weights, read_checkpoint, read_vae
from workers.engine.loader.embeddings import Embedding, read_embedding
from workers.engine.models import Models, PartModels, blob_of, weights_id
from workers.engine.networks.binding import (
    Bindable,
    Opened,
    OpenNetwork,
    Unread,
    bound,
    network_id,
    not_served,
    open_any,
)
from workers.engine.networks_at_work import NetworksAtWork
from workers.engine.preparation import MOST_ROWS, controlled, rows_of
from workers.engine.text.encoder import MOST_BYTES
from workers.engine.turns import Turns

READERS = 4
GRAPHS = 8
"""CUDA graphs, where nothing else is said."""


@dataclass(frozen=True)
class EngineStatus:
    """What an engine is doing. `hot`: blob sha256 of the checkpoints whose weights are in a slot; memory in
    bytes of the device.
    """

    hot: list[str]
    slots: int
    parts: int
    rows: int
    forwards: int
    weight_changes: int
    steps_per_second: float
    memory_used: int
    memory_free: int


class Engine:
    """Makes the pictures of resolved parts, any number at once, on one device.

    `open_model` gives the file of a model (and may fetch it first); it is called on reader threads.
    `memory_bytes` bounds weights and working memory; None takes most of what the device has free.
    `slots`: how many checkpoints of one architecture may be on the device at once. `open_network` reads the
    files of LoRA and hypernetworks, `open_annotator` what draws ControlNets' maps; `open_input` gives stored
    pictures. `graphs`: how many kinds of batches may be CUDA graphs.
    `channels_last`: how weights of convolutions lie; None means channels last on a GPU.
    """

    def __init__(
        self,
        open_model: Callable[[ModelRef], ModelFile],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        memory_bytes: int | None = None,
        slots: int = 2,
        turns: Turns | None = None,
        open_network: OpenNetwork = open_any,
        open_input: OpenInput = no_inputs,
        open_annotator: OpenAnnotator = annotators.open_any,
        graphs: int = GRAPHS,
        channels_last: bool | None = None,
    ) -> None:
        self._open_model = open_model
        self._open_network = open_network
        self._memory = memory_bytes or memory.of_machine(device)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._pinned = device.startswith("cuda")
        self._host = HostCache(memory.for_files(device, self._memory))
        self._units = Units(self._host, open_model, open_input, open_annotator, pinned=self._pinned)
        recorded = cuda_graphs.runner(device, graphs, self._memory // 8)
        prompts = min(MOST_BYTES, self._memory // 32)
        self._networks = NetworksAtWork(
            device,
            self._dtype,
            slots,
            recorded,
            prompt_bytes=prompts,
            channels_last=self._pinned if channels_last is None else channels_last,
        )
        self._executor = Executor(
            self._networks, turns or Turns(), most_rows=MOST_ROWS, memory=self._memory // 2
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="engine-reader")
        self._lock = threading.Lock()
        self._parts: set[PartRun] = set()
        self._closed = False

    def start(self) -> None:
        """Start the executor's thread."""
        self._executor.start()

    @property
    def alive(self) -> bool:
        """Whether parts that are submitted will be worked on."""
        return self._executor.alive and not self._closed

    def keep(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint that is in memory already, so that the model whose weights have its name needs no
        file.
        """
        self._host.get(checkpoint.id, lambda: checkpoint)

    def submit(self, part: ResolvedPart) -> PartHandle:
        """Take a part on. Raises an AtelierError at once for what no model is needed to refuse; later ones
        come from `result`.
        """
        samplers.find(part.sampler)
        run = PartRun(part)
        with self._lock:
            if self._closed:
                raise WorkReturned("This worker is shutting down; the part will be taken by another.")
            self._parts.add(run)
        run.future.add_done_callback(lambda _: self._forget(run))
        run.enter("loading")
        self._readers.submit(self._load, run)
        return PartHandle(run, self._executor.wake)

    def _forget(self, run: PartRun) -> None:
        with self._lock:
            self._parts.discard(run)

    def _load(self, run: PartRun) -> None:
        """On a reader's thread: the part's models into host memory, then over to the executor."""
        try:
            models = self._models(run.part)
            self._check_memory(run.part, models)
            run.maps = tuple(each for unit in models.controls for each in unit.maps)
        except AtelierError as error:
            run.future.set_exception(error)
        except Exception as error:  # noqa: BLE001  # whoever waits for the future must hear of it
            run.future.set_exception(InternalError(f"The model could not be loaded: {error}"))
        else:
            self._executor.admit(run, models)

    def _check_memory(self, part: ResolvedPart, models: PartModels) -> None:
        """OutOfMemory, with the largest size that fits, where a pass of the part does not."""
        itemsize, room = self._dtype.itemsize, self._memory // 2
        rows = rows_of(part.prompt, MOST_ROWS) + controlled(part)
        models.base.footprint(itemsize).check(part.width, part.height, room, rows)
        if part.hires is not None:
            rows = rows_of(part.hires.prompt, MOST_ROWS) + controlled(part)
            models.second.footprint(itemsize).check(*part.hires.upscaled, room, rows)

    def _models(self, part: ResolvedPart) -> PartModels:
        told: list[str] = []
        refiner, hires = part.refiner, part.hires
        first = self._networks_of(part.networks, told)
        second = self._networks_of(hires.networks, told) if hires else first
        other = hires is not None and hires.networks != part.networks

        def models(ref: ModelRef, vae: ModelRef | None, networks: Sequence[Opened]) -> Models:
            return self._checkpoint(part, ref, vae, networks, told)

        own = None
        if hires and hires.checkpoint:
            own = models(hires.checkpoint, hires.vae, second)
        elif other:
            own = models(part.checkpoint, part.vae, second)
        named = [self._embedding(each) for each in part.embeddings]
        bundled = [each for opened in (*first, *second) for each in opened.embeddings]
        found = PartModels(
            base=models(part.checkpoint, part.vae, first),
            refiner=models(refiner.checkpoint, refiner.vae, first) if refiner else None,
            hires=own,
            hires_refiner=models(refiner.checkpoint, refiner.vae, second) if refiner and other else None,
            embeddings=tuple(dict.fromkeys([*named, *bundled])),
            warnings=tuple(dict.fromkeys(told)),
            controls=self._units.ready(part),
        )
        found.check_controls()
        return found

    def _networks_of(self, uses: Sequence[NetworkUse], told: list[str]) -> list[Opened]:
        """The networks of a pass in host memory; what nobody here can read is told."""
        found: list[Opened] = []
        for use in uses:
            network = self._host.get(network_id(use), partial(self._network, use))
            if isinstance(network, Unread):
                told.append(not_served(use))
            else:
                found.append(Opened(use, network))
        return found

    def _network(self, use: NetworkUse) -> Bindable | Unread:
        return self._open_network(use, self._open_model(use.model).path) or Unread()

    def _checkpoint(
        self,
        part: ResolvedPart,
        ref: ModelRef,
        vae: ModelRef | None,
        networks: Sequence[Opened],
        told: list[str],
    ) -> Models:
        name = weights_id(ref)
        read = self._host.get(name, lambda: read_checkpoint(self._open_model(ref), name, pinned=self._pinned))
        checkpoint, complaints = bound(read, networks)
        told += complaints
        settings = part.settings
        models = Models.of(
            checkpoint,
            None if vae is None else self._vae(vae),
            family=ref.family,
            zero_snr=settings.zero_terminal_snr,
            halved=settings.use_downcasted_alpha_bar,
        )
        return replace(models, source=read)

    def _embedding(self, ref: ModelRef) -> Embedding:
        name = f"embedding:{ref.blob_sha256}:{ref.name}"
        return self._host.get(name, lambda: read_embedding(self._open_model(ref), name, ref.name))

    def _vae(self, ref: ModelRef) -> Weights:
        name = f"vae:{ref.blob_sha256}"
        return self._host.get(name, lambda: read_vae(self._open_model(ref), name, pinned=self._pinned))

    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        counters, networks = self._executor.counters, self._networks
        used = networks.size + (0 if self._pinned else self._host.size)
        busy = counters.busy_seconds
        with self._lock:
            parts = len(self._parts)
        return EngineStatus(
            hot=[blob_of(slot.weights) for slot in networks.unets.slots if slot.weights],
            slots=len(networks.unets.slots),
            parts=parts,
            rows=self._executor.live_rows,
            forwards=counters.forwards,
            weight_changes=networks.unets.changes,
            steps_per_second=counters.steps / busy if busy else 0.0,
            memory_used=used,
            memory_free=max(self._memory - used, 0),
        )

    def close(self, timeout: float) -> None:
        """Take nothing more on, finish what was taken within `timeout` seconds, then stop. What is left fails
        as WorkReturned.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
        self._readers.shutdown(wait=True)
        self._executor.close(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            left = list(self._parts)
        for run in left:
            if not run.future.done():
                run.future.set_exception(WorkReturned("The worker shut down before this part was finished."))


__all__ = ["Engine", "EngineResult", "EngineStatus"]
