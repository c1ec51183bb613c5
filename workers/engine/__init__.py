"""The engine: networks at work. Parts go in by `Engine.submit`, pictures come out of `PartHandle.result`."""

from workers.engine.engine import Engine, EngineStatus
from workers.engine.handle import EnginePicture, EngineProgress, EngineResult, PartHandle
from workers.engine.loader.checkpoint import ModelFile

__all__ = [
    "Engine",
    "EnginePicture",
    "EngineProgress",
    "EngineResult",
    "EngineStatus",
    "ModelFile",
    "PartHandle",
]
