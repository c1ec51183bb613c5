"""The Python client against a real portal and a real worker: submit, follow, fetch."""

from __future__ import annotations

import asyncio
import io
import uuid

import pytest
from PIL import Image

from atelier.client import PortalClient
from atelier.contract.errors import NotFound, UnknownName
from atelier.contract.jobs import JobRequest, JobState
from atelier.contract.parts import Action
from tests.live_portal import SMALL, LivePortal


def connected(live: LivePortal, name: str) -> PortalClient:
    token = live.person(name).headers["Authorization"].removeprefix("Bearer ")
    return PortalClient(live.url, token=token)


def test_a_program_submits_a_job_follows_it_and_fetches_its_picture(live: LivePortal) -> None:
    async def use() -> None:
        async with connected(live, "ann") as portal:
            key, request = uuid.uuid4().hex, JobRequest(txt2img_payload=SMALL)
            accepted = await portal.submit(request, idempotency_key=key)
            assert (await portal.submit(request, idempotency_key=key)).id == accepted.id
            seen = [view async for view in portal.events(accepted.id)]
            assert seen[-1].state is JobState.SUCCEEDED
            [picture] = seen[-1].pictures
            data = await portal.file(picture.url)
            assert Image.open(io.BytesIO(data)).info["parameters"] == picture.infotext
            assert (await portal.job(accepted.id)).pictures == seen[-1].pictures
            assert accepted.id in [view.id for view in await portal.jobs()]

    asyncio.run(use())


def test_a_program_is_told_in_the_portals_words_and_may_cancel_its_own_jobs_alone(live: LivePortal) -> None:
    async def use() -> None:
        async with connected(live, "ann") as ann, connected(live, "bob") as bob:
            with pytest.raises(UnknownName, match="Did you mean 'Euler'"):
                await ann.submit(JobRequest(txt2img_payload={**SMALL, "sampler_name": "Eulr"}))
            job = await ann.submit(JobRequest(txt2img_payload={**SMALL, "steps": 150, "n_iter": 20}))
            with pytest.raises(NotFound):
                await bob.act(job.id, Action.CANCEL)
            await ann.act(job.id, Action.CANCEL)
            states = [view.state async for view in ann.events(job.id)]
            assert states[-1] is JobState.CANCELLED

    asyncio.run(use())
