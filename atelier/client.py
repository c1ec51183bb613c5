"""The portal's API as a Python client: what the web UI and programs call. The caller's own credentials
travel, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from atelier.contract.errors import AtelierError, InternalError, WorkerUnavailable, from_body
from atelier.contract.jobs import JobRequest, JobView
from atelier.contract.parts import Action


class PortalClient:
    """Calls /api/v1 with a cookie or an Authorization header. Every method raises AtelierError with the
    portal's own sentence.
    """

    def __init__(
        self,
        base_url: str,
        *,
        cookies: Mapping[str, str] | None = None,
        token: str | None = None,
        origin: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 30.0,
    ) -> None:
        headers = {"Origin": origin or base_url.rstrip("/")}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            cookies=dict(cookies or {}),
            transport=transport,
            timeout=timeout,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def me(self) -> dict[str, Any]:
        """Who the caller is: id, username, role, permissions, settings."""
        return dict(await self._json("GET", "/api/v1/me"))

    async def models(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The models the caller may use."""
        return list(await self._json("GET", "/api/v1/models", params={"kind": kind} if kind else None))

    async def styles(self) -> list[dict[str, Any]]:
        """The prompt styles a request of the caller may name: name, prompt, negative_prompt, scope."""
        return list((await self._json("GET", "/api/v1/styles"))["styles"])

    async def save_style(self, name: str, prompt: str, negative_prompt: str) -> dict[str, Any]:
        """Make a style of the caller's own, or replace the one of that name."""
        body = {"prompt": prompt, "negative_prompt": negative_prompt}
        return dict(await self._json("PUT", f"/api/v1/styles/{quote(name, safe='')}", json=body))

    async def delete_style(self, name: str) -> None:
        """Take away a style of the caller's own. Raises NotFound."""
        await self._send("DELETE", f"/api/v1/styles/{quote(name, safe='')}")

    async def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> JobView:
        """Accept a job; the same key with the same body gives the same job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return JobView.model_validate(
            await self._json("POST", "/api/v1/jobs", json=request.model_dump(), headers=headers)
        )

    async def job(self, job_id: str) -> JobView:
        """One of the caller's jobs. Raises NotFound."""
        return JobView.model_validate(await self._json("GET", f"/api/v1/jobs/{job_id}"))

    async def jobs(self, *, state: str | None = None, limit: int = 20) -> list[JobView]:
        """The caller's newest jobs; state "active" means those not yet final."""
        params = {"limit": str(limit)} | ({"state": state} if state else {})
        found = await self._json("GET", "/api/v1/jobs", params=params)
        rows = found["jobs"] if isinstance(found, dict) else found
        return [JobView.model_validate(each) for each in rows]

    async def act(self, job_id: str, action: Action) -> JobView:
        """Interrupt, skip or cancel a job."""
        return JobView.model_validate(
            await self._json("POST", f"/api/v1/jobs/{job_id}/actions", json={"action": action.value})
        )

    async def events(self, job_id: str) -> AsyncIterator[JobView]:
        """The job at each change until it is final."""
        async with self._http.stream(
            "GET", f"/api/v1/jobs/{job_id}/events", timeout=httpx.Timeout(30, read=60)
        ) as answer:
            if answer.is_error:
                await answer.aread()
                raise _failure(answer)
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield JobView.model_validate(json.loads(line.removeprefix("data:")))

    async def file(self, url: str) -> bytes:
        """The bytes behind a picture's `url`."""
        return (await self._send("GET", url)).content

    async def _json(self, method: str, url: str, **options: Any) -> Any:
        return (await self._send(method, url, **options)).json()

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, url, **options)
        except httpx.TransportError as error:
            raise WorkerUnavailable(
                f"The portal does not answer ({type(error).__name__}). Try again in a moment."
            ) from error
        if answer.is_error:
            raise _failure(answer)
        return answer


def _failure(answer: httpx.Response) -> AtelierError:
    try:
        body = answer.json()["error"]
        return from_body(body)
    except (ValueError, KeyError, TypeError):
        return InternalError(f"The portal answered {answer.status_code} without a reason.")
