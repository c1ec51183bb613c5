"""Direct calls of /invocations: bodies of callers without a portal, resolved on the endpoint's catalogue."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from atelier import answer, gridfile, wire
from atelier.contract import keys, plain
from atelier.contract.errors import AtelierError, WorkerUnavailable
from atelier.contract.models import Catalogue
from atelier.contract.plain import Output
from atelier.grid import opened
from atelier.ignored import Ignored
from atelier.picturefile import Encoded
from atelier.resolve import Resolution, resolve_txt2img
from atelier.resolve.members import lifted
from atelier.resolve.plain import resolve_plain
from atelier.storage.base import BlobStore
from workers.inference.executor import Executor, Shown
from workers.runtime import store as documents
from workers.runtime.inputs import Inputs
from workers.runtime.server import Answer, Invocation

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
"""The one header that SageMaker hands from a container to its caller; it takes 1024 printable characters."""
_ATTRIBUTES_LENGTH = 1024


class DirectCalls:
    """Answers calls that name models by what the portal published for `endpoint`. `output`: where pictures
    go that a call says nothing of. `inputs` keeps the pictures of calls.
    """

    def __init__(
        self,
        executor: Executor,
        store: BlobStore,
        endpoint: str,
        *,
        output: Output = "base64",
        inputs: Inputs | None = None,
    ) -> None:
        self._executor, self._store, self._endpoint, self._output = executor, store, endpoint, output
        self._inputs = inputs or Inputs(store)

    async def plain(self, invocation: Invocation) -> Answer:
        """A plain request: its pictures as JPEGs in the order of its prompts. What there is to say of them
        stands in the header ATTRIBUTES, for the answer has no place for it.
        """
        request = plain.parse(invocation.body)
        catalogue = await self._catalogue()
        resolution = await asyncio.to_thread(resolve_plain, request, catalogue)
        made = await self._executor.run_direct(resolution.parts, invocation.gone)
        headers = notices([*resolution.warnings, *made.warnings], resolution.ignored)
        if (request.output or self._output) == "s3":
            return Answer({"s3_loc": await self._stored(made.pictures)}, headers)
        return Answer({"generated_images": await asyncio.to_thread(_base64, made.pictures)}, headers)

    async def txt2img(self, invocation: Invocation) -> Answer:
        """A text-to-image request of the published wire, answered as the peer's API does."""
        body, started = invocation.body, time.time()
        payload = wire.payload_of(body)
        output = wire.output_of(body) or self._output
        model = wire.model_of(body)
        catalogue = await self._catalogue()
        stored = await asyncio.to_thread(lifted, payload, self._inputs.keep)
        resolution = await asyncio.to_thread(resolve_txt2img, stored, catalogue, model=model, answering=True)
        made = await self._executor.run_direct(resolution.parts, invocation.gone)
        grids = await asyncio.to_thread(_grids, resolution, made.pictures)
        texts = [each.infotext for each in (*grids, *made.pictures)]
        info = answer.info(resolution, texts, started=started, grids=len(grids))
        info["atelier"]["warnings"] += made.warnings
        info["atelier"]["ignored"] += [each._asdict() for each in wire.unheeded(body, payload)]
        shown = [*grids, *(made.pictures if resolution.arrangement.lone_pictures else ()), *made.maps]
        told = {"parameters": resolution.payload.model_dump(mode="json"), "info": json.dumps(info)}
        if output == "s3":
            return Answer({"s3_loc": await self._stored(shown), **told})
        send = resolution.payload.send_images is not False
        return Answer({"images": await asyncio.to_thread(_base64, shown) if send else [], **told})

    async def _catalogue(self) -> Catalogue:
        catalogue = await asyncio.to_thread(
            documents.read, self._store, keys.catalogue(self._endpoint), Catalogue
        )
        if catalogue is None:
            raise WorkerUnavailable(f"The catalogue of the endpoint {self._endpoint!r} is not published yet.")
        return catalogue

    async def _stored(self, pictures: Sequence[Shown]) -> list[str]:
        """Store pictures side by side under keys of a name drawn for this request; their locations. What was
        stored is taken away again where one of them cannot be.
        """
        request = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex}"
        named = [
            (keys.answer(self._endpoint, request, index, each.file.extension), each.file)
            for index, each in enumerate(pictures)
        ]
        puts = [
            asyncio.to_thread(self._store.put, key, file.data, content_type=file.media_type)
            for key, file in named
        ]
        ends = await asyncio.gather(*puts, return_exceptions=True)
        failed = next((end for end in ends if isinstance(end, BaseException)), None)
        if failed is None:
            return [self._store.location(key) for key, _ in named]
        for key, _ in named:
            with contextlib.suppress(AtelierError, OSError):
                await asyncio.to_thread(self._store.delete, key)
        raise failed


def notices(warnings: Sequence[str], ignored: Sequence[Ignored]) -> dict[str, str]:
    """The header that tells of a request what its answer cannot: {"warnings", "ignored"} as ASCII JSON, of
    which as much as fits. Nothing to say is no header.
    """
    said: dict[str, list[Any]] = {
        "warnings": list(dict.fromkeys(warnings)),
        "ignored": [each._asdict() for each in ignored],
    }
    while any(said.values()):
        text = json.dumps(said, separators=(",", ":"))
        if len(text) <= _ATTRIBUTES_LENGTH:
            return {ATTRIBUTES: text}
        (said["warnings"] or said["ignored"]).pop()
    return {}


def _base64(pictures: Sequence[Shown]) -> list[str]:
    return [base64.b64encode(each.file.data).decode() for each in pictures]


def _grids(resolution: Resolution, pictures: Sequence[Shown]) -> list[Shown]:
    """The grids a request wants of its `pictures`."""
    if not resolution.arrangement.grids:
        return []
    sizes = {}
    for index, each in enumerate(pictures):
        with opened(each.file.data) as image:
            sizes[index] = image.size
    drawn = gridfile.files(
        resolution.arrangement, resolution.parts, sizes, lambda index: opened(pictures[index].file.data)
    )
    return [Shown(each.infotext, Encoded(each.data, each.media_type, each.extension)) for each in drawn]
