"""The portal's API as a Python client: what the web UI and programs call. The caller's own credentials
travel, nothing else. And `invoke`, for a worker that is called without a portal.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from atelier.contract.errors import (
    AtelierError,
    Expired,
    InternalError,
    InvalidRequest,
    StorageFailed,
    WorkerUnavailable,
    from_body,
)
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
            await self._json(
                "POST", "/api/v1/jobs", json=request.model_dump(exclude_unset=True), headers=headers
            )
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


Fetch = Callable[[str], bytes | None]
"""Reads what is at a location; None while nothing is there. Others' failures pass through it."""

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_OUTPUT, _FAILURE = "X-Amzn-SageMaker-OutputLocation", "X-Amzn-SageMaker-FailureLocation"
_IN_THE_ANSWER = ("generated_images", "images")
_FIRST_LOOK, _LONGEST_WAIT = 0.2, 5.0


@dataclass(frozen=True)
class Invoked:
    """The pictures of an answer: whole files in order, ready for `PIL.Image.open(io.BytesIO(each))`.

    `locations` says where they are stored, if they are. `notices` has the "warnings" and "ignored" members
    that a plain answer tells in a header.
    """

    pictures: tuple[bytes, ...]
    locations: tuple[str, ...] = ()
    notices: dict[str, Any] = field(default_factory=dict)


def invoke(
    url: str,
    request: str | Mapping[str, Any],
    *,
    token: str | None = None,
    fetch: Fetch | None = None,
    patience: float = 3600.0,
    wait: Callable[[float], None] = time.sleep,
) -> Invoked:
    """Have a worker's /invocations, or a portal's /inference, make the pictures of a plain request
    (docs/api.md), or of a prompt alone, and get them: out of the answer, from the locations it names, or,
    where it answers 202 as an asynchronous endpoint does, from where its answer will be.

    `fetch` reads locations; without it files of this machine and answers at the address that was called are
    read, and pictures stored elsewhere (s3://) are named and left there. `patience`: seconds until an answer
    is given up. Raises AtelierError with the worker's own code and sentence, WorkerUnavailable where nobody
    answers, Expired out of patience.
    """
    body = {"prompt": request} if isinstance(request, str) else dict(request)
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        answer = httpx.post(url, json=body, headers=headers, timeout=patience, trust_env=False)
    except httpx.TransportError as error:
        raise WorkerUnavailable(
            f"There is no answer from {url} ({type(error).__name__}). Is the worker in service?"
        ) from error
    if answer.is_error:
        raise _failure(answer)
    told = _object(answer.content)
    if answer.status_code == httpx.codes.ACCEPTED and _OUTPUT in answer.headers:
        told = {"OutputLocation": answer.headers[_OUTPUT], "FailureLocation": answer.headers.get(_FAILURE)}
        if fetch is None and _same_site(str(told["OutputLocation"]), url):
            told["FailureLocation"] = None  # the answer itself says why there is none
            fetch = _reader(headers)
    found = collect(told, fetch=fetch, patience=patience, wait=wait)
    return Invoked(found.pictures, found.locations, found.notices | _notices(answer.headers.get(ATTRIBUTES)))


def collect(
    answer: Mapping[str, Any],
    *,
    fetch: Fetch | None = None,
    patience: float = 3600.0,
    wait: Callable[[float], None] = time.sleep,
) -> Invoked:
    """The pictures behind an answer of a worker, or behind what invoke_endpoint_async of AWS's client gives;
    `fetch` and the rest as for `invoke`, which is this after a call. Raises AtelierError.
    """
    if "OutputLocation" in answer:
        answer = _awaited(answer, fetch or _local_file, patience, wait)
    inside = next((answer[name] for name in _IN_THE_ANSWER if name in answer), None)
    if inside is not None:
        return Invoked(tuple(map(_decoded, inside)))
    locations = tuple(map(str, answer.get("s3_loc") or ()))
    if not locations:
        raise InternalError("The worker's answer has neither pictures nor locations.")
    if fetch is None and not all(each.startswith("file:") for each in locations):
        return Invoked((), locations)
    return Invoked(tuple(_stored(each, fetch or _local_file) for each in locations), locations)


def _awaited(
    answer: Mapping[str, Any], fetch: Fetch, patience: float, wait: Callable[[float], None]
) -> dict[str, Any]:
    """The answer once it is where it was promised to be; the waits between two looks grow."""
    output, failure = str(answer["OutputLocation"]), answer.get("FailureLocation")
    waited, pause = 0.0, _FIRST_LOOK
    while True:
        if (content := fetch(output)) is not None:
            return _object(content)
        if failure and (content := fetch(str(failure))) is not None:
            _raise_told(content)
        if waited >= patience:
            raise Expired(f"There was no answer at {output} within {patience:.0f} seconds.")
        wait(pause)
        waited, pause = waited + pause, min(pause * 1.5, _LONGEST_WAIT)


def _raise_told(content: bytes) -> NoReturn:
    """The error that a failed asynchronous call left behind: ours as JSON, perhaps with words around it."""
    text = content.decode("utf-8", "replace")
    start, end = text.find('{"error"'), text.rfind("}") + 1
    try:
        raise from_body(json.loads(text[start:end])["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InternalError(f"The endpoint failed without a reason of ours: {text[:300]}") from None


def _same_site(location: str, url: str) -> bool:
    there, here = urlsplit(location), urlsplit(url)
    return there.scheme in ("http", "https") and there[:2] == here[:2]


def _reader(headers: Mapping[str, str]) -> Fetch:
    """Reads answers of a portal with the credentials that made the job."""

    def fetch(location: str) -> bytes | None:
        try:
            answer = httpx.get(location, headers=dict(headers), timeout=60.0, trust_env=False)
        except httpx.TransportError:
            return None  # it may be back at the next look
        if answer.status_code == httpx.codes.ACCEPTED:
            return None
        if answer.is_error:
            raise _failure(answer)
        return answer.content

    return fetch


def _object(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise InternalError("The worker's answer is no JSON object.") from error


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise InternalError("A picture of the worker's answer is no base64.") from error


def _notices(header: str | None) -> dict[str, Any]:
    try:
        told = json.loads(header or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _stored(location: str, fetch: Fetch) -> bytes:
    found = fetch(location)
    if found is None:
        raise StorageFailed(f"The worker stored a picture at {location}, and nothing is there.")
    return found


def _local_file(location: str) -> bytes | None:
    """A file of this machine by its file:// address."""
    address = urlsplit(location)
    if address.scheme != "file":
        raise InvalidRequest(
            f"{location} is not a file of this machine. Give `fetch`, a function that reads such a location."
        )
    path = Path(unquote(address.path))
    return path.read_bytes() if path.is_file() else None
