"""The inference worker's program: `python -m workers.inference.server [serve]`, and with `accelerations` in
its place a list of what makes a worker faster here. The one place where its parts are joined.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence

import torch

from atelier import logs, redaction
from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import InstanceState
from atelier.picturefile import ENGINE_NAME
from atelier.processes import exit_with_parent
from atelier.storage.opening import open_store
from workers.engine import Engine, ModelFile, attention
from workers.inference import accelerations
from workers.inference.direct import DirectCalls
from workers.inference.executor import Executor
from workers.inference.tasks import Tasks
from workers.runtime.extensions import Extensions
from workers.runtime.gpu_figures import Gpu
from workers.runtime.inputs import Inputs
from workers.runtime.model_cache import ModelCache
from workers.runtime.server import Gate, serve
from workers.runtime.settings import ComputeSettings, WorkerSettings
from workers.runtime.side_thread import SideThread
from workers.runtime.start import begun

_CLOSE_SECONDS = 2.0
_INTO_MEMORY = (ModelKind.CHECKPOINT, ModelKind.VAE)
"""What the engine reads from wherever it lies; extensions open files of other kinds, from the disk."""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM, or until its parent's pipe closes. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.inference.server", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "accelerations"],
        default="serve",
        help="serve is what SageMaker passes; accelerations says what can be used here",
    )
    command = parser.parse_args(arguments).command
    return begun(_accelerations if command == "accelerations" else _serve)


def _accelerations() -> int:
    compute = ComputeSettings()
    sys.stdout.write(accelerations.report(compute.attention, *placement(compute)) + "\n")
    return 0


def _serve() -> int:
    exit_with_parent()
    settings = WorkerSettings().with_secrets()  # what is required comes from the environment
    logs.configure("worker", settings.log_level, settings.log_format)
    redaction.hide(settings.token, settings.signing_key.decode())
    log.info("%s: %s", ENGINE_NAME, settings.redacted())
    return 0 if run(settings) else 1


def run(settings: WorkerSettings) -> bool:
    """Join the parts, serve and drain; whether the start succeeded."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    store = open_store(settings.store)
    cache = ModelCache(store, settings.model_cache, settings.model_cache_bytes, baked=settings.baked_models)
    device, dtype = placement(settings)
    choose_attention(settings.attention, device, dtype)

    def open_model(model: ModelRef) -> ModelFile:
        config = cache.config(model)
        distant = cache.distant(model) if model.kind in _INTO_MEMORY else None
        path = cache.path(model) if distant is None else cache.place(model)
        return ModelFile(path, config, model.filename, distant)

    extensions, inputs = Extensions(), Inputs(store)
    engine = Engine(
        open_model,
        device=device,
        dtype=dtype,
        memory_bytes=settings.model_memory,
        open_network=extensions.open_network,
        open_input=inputs.open,
        open_annotator=extensions.open_annotator,
        graphs=settings.cuda_graphs,
        channels_last=settings.channels_last,
    )
    gate = Gate(settings.max_invocations)
    gpu = Gpu.found() if device.startswith("cuda") else None
    side = SideThread(store, settings.endpoint, lambda: instance_state(settings, gate, engine, device, gpu))
    executor = Executor(engine, store, side, hold=cache.hold)
    gate.announce = side.announce

    def health() -> list[str]:
        return [*side.faults(), *([] if engine.alive else ["The engine's thread has ended."])]

    def start() -> None:
        engine.start()
        side.start()

    direct = DirectCalls(executor, store, settings.endpoint, output=settings.output, inputs=inputs)
    try:
        return serve(
            Tasks(executor, direct, settings.endpoint, settings.signing_key),
            gate,
            host=settings.host,
            port=settings.port,
            token=settings.token,
            max_body_bytes=settings.max_body_bytes,
            drain_seconds=settings.drain_seconds,
            start=start,
            give_up=executor.give_up,
            health=health,
        )
    finally:
        engine.close(_CLOSE_SECONDS)
        executor.close()
        side.stop()


def choose_attention(asked: str, device: str, dtype: str) -> None:
    """Let the engine compute attention as it was asked for, or as the device can; the log says which."""
    choice = attention.choose(asked, accelerations.machine(device, dtype))
    attention.use(choice)
    if choice.note:
        log.warning("%s", choice.note)
    log.info("attention: %s (asked for: %s)", choice.name, asked)


def placement(settings: ComputeSettings) -> tuple[str, str]:
    """(device, dtype) with "auto" decided by what the machine has."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if device == "cuda" else "float32"
    return device, dtype


def instance_state(
    settings: WorkerSettings, gate: Gate, engine: Engine, device: str, gpu: Gpu | None = None
) -> InstanceState:
    """What this worker says of itself."""
    status = engine.status()
    return InstanceState(
        endpoint=settings.endpoint,
        instance=settings.instance,
        engine=ENGINE_NAME,
        status=gate.status,
        at=time.time(),
        hot=tuple(status.hot),
        slots=status.slots,
        parts=status.parts,
        rows=status.rows,
        forwards=status.forwards,
        weight_changes=status.weight_changes,
        steps_per_second=status.steps_per_second,
        memory_used=status.memory_used,
        memory_free=status.memory_free,
        device=device,
        gpu=gpu.read() if gpu is not None else None,
    )


if __name__ == "__main__":
    sys.exit(main())
