"""A scripted portal for tests of the web UI alone: two people, and jobs that draw at a pace the test sets."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Form, HTTPException, Request
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from atelier.pasting import paste
from tests.browser.input_double import add_inputs
from tests.browser.model_double import add_models, some_models

PEOPLE = {"ada": "correct horse battery", "grace": "staple battery horse"}
FINAL = {"succeeded", "stopped", "cancelled", "failed"}


@dataclass
class Job:
    """A job of the double: `paint` moves it on."""

    id: str
    owner: str
    payload: dict[str, Any]
    model: str | None
    created: float = field(default_factory=time.time)
    state: str = "queued"
    step: int = 0
    pictures: list[str] = field(default_factory=list)
    version: int = 0
    endpoint: str | None = None
    action: str | None = None
    error: dict[str, Any] | None = None
    finished: float | None = None
    visibility: str = "private"
    team: str | None = None


class Double:
    """The double's memory, and how fast it works: `step_s` seconds a step."""

    def __init__(self, step_s: float = 0.02) -> None:
        self.step_s = step_s
        self.jobs: dict[str, Job] = {}
        self.files: dict[str, tuple[str, bytes, dict[str, Any]]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.refuse_with: dict[str, Any] | None = None
        self.ended: set[str] = set()
        self.actions: list[tuple[str, str]] = []
        self.shows: dict[str, Any] = {}
        """What views say of every job instead, its progress by "progress"."""
        self.models = some_models()
        self.assets: dict[str, bytes] = {}
        self.permissions: list[str] = ["sharing.own"]
        self.teams: dict[str, list[str]] = {}
        self.endpoints = {"local": "in_service", "big": "asleep"}
        self.chosen: dict[str, str] = {}
        self.locked_by = ""
        self.styles = {
            "wrap": ("photo of {prompt}, bright", "dark"),
            "plain": ("sharp edges", "blurry, {prompt}"),
        }
        self.readings: list[dict[str, Any]] = []
        self.serial = itertools.count(1)
        self.running: set[asyncio.Task[None]] = set()

    def who(self, request: Request) -> str:
        name = request.cookies.get("atelier", "").removeprefix("session-of-")
        if name not in PEOPLE or name in self.ended:
            raise HTTPException(401)
        return name

    def owned(self, request: Request, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None or job.owner != self.who(request):
            raise HTTPException(404)
        return job

    def shares(self, job: Job, name: str) -> bool:
        """Whether the job is shared with somebody of that name."""
        return job.visibility == "studio" or (job.visibility == "team" and name in self.teams[str(job.team)])

    async def paint(self, job: Job) -> None:
        total = int(job.payload["n_iter"]) * int(job.payload["batch_size"])
        steps = int(job.payload["steps"])
        await asyncio.sleep(self.step_s)
        job.state = "running"
        for index in range(total):
            for step in range(steps):
                if job.action in ("stop_now", "cancel"):
                    break
                job.step, job.version = index * steps + step + 1, job.version + 1
                await asyncio.sleep(self.step_s)
            if job.action != "cancel":
                self.finish_picture(job, index)
            if job.action in ("stop_now", "finish_current", "cancel"):
                break
        if job.payload.get("save_images") and len(job.pictures) > 1:
            self.finish_grid(job)
        job.finished = time.time()
        job.state = {None: "succeeded", "cancel": "cancelled"}.get(job.action, "stopped")
        job.version += 1

    def finish_picture(self, job: Job, index: int) -> None:
        seed = (job.payload["seed"] if job.payload["seed"] >= 0 else 1234567890) + index
        size = (int(job.payload["width"]), int(job.payload["height"]))
        infotext = (
            f"{job.payload['prompt']}\nNegative prompt: {job.payload['negative_prompt']}\n"
            f"Steps: {job.payload['steps']}, Sampler: {job.payload['sampler_name']}, "
            f"CFG scale: {job.payload['cfg_scale']}, "
            f"Seed: {seed}, Size: {size[0]}x{size[1]}, Model: demo, Version: v1.10.1"
        )
        self.keep(job, draw(size, seed), infotext, {"seed": seed, "subseed": seed + 1})

    def finish_grid(self, job: Job) -> None:
        first = self.files[job.pictures[0]][2]
        grid = draw((2 * int(first["width"]), int(first["height"])), 5)
        self.keep(job, grid, first["infotext"], {"seed": first["seed"], "subseed": 0, "grid": True})
        job.pictures.insert(0, job.pictures.pop())

    def keep(self, job: Job, picture: Image.Image, infotext: str, about: dict[str, Any]) -> None:
        chunk = PngInfo()
        chunk.add_text("parameters", infotext)
        out = io.BytesIO()
        picture.save(out, "PNG", pnginfo=chunk)
        name = f"pic{next(self.serial)}"
        view = {
            "id": name,
            "url": f"/files/{name}",
            "download_url": f"/files/{name}?download=1",
            "width": picture.width,
            "height": picture.height,
            "infotext": infotext,
            "complete": True,
            "grid": False,
        } | about
        self.files[name] = (job.owner, out.getvalue(), view)
        job.pictures.append(name)
        job.version += 1

    def view(self, job: Job) -> dict[str, Any]:
        view = self.painted(job)
        progress = view["progress"] | self.shows.get("progress", {})
        return view | self.shows | {"progress": progress}

    def painted(self, job: Job) -> dict[str, Any]:
        total = int(job.payload["n_iter"]) * int(job.payload["batch_size"])
        steps = total * int(job.payload["steps"])
        running = job.state == "running"
        done = job.state in FINAL
        return {
            "id": job.id,
            "owner": job.owner,
            "visibility": job.visibility,
            "team": job.team,
            "task": "text-to-image",
            "state": job.state,
            "created": job.created,
            "endpoint": "local",
            "model": job.model,
            "queue_position": 1 if job.state == "queued" else None,
            "progress": {
                "fraction": 1.0 if done else 0.95 * job.step / steps,
                "phase": "steps" if running else job.state,
                "step": job.step,
                "steps": steps,
                "pictures_done": len(job.pictures),
                "pictures": total,
                "eta_s": (steps - job.step) * self.step_s if running and job.step > 2 else None,
                "preview_url": f"/api/v1/jobs/{job.id}/preview/{job.step}"
                if running and job.step > 1
                else None,
                "note": "In queue: 1/1" if job.state == "queued" else "",
            },
            "pictures": [self.files[name][2] for name in job.pictures],
            "info": {"atelier": {"warnings": [], "ignored": self.ignored(job)}},
            "error": job.error,
            "timeline": {"accepted": job.created} | ({"visible": job.finished} if job.finished else {}),
            "version": job.version,
        }

    def ignored(self, job: Job) -> list[dict[str, str]]:
        if "subseed" in job.payload and not job.payload.get("subseed_strength"):
            return [{"field": "subseed", "reason": "it takes effect with subseed_strength > 0"}]
        return []


def draw(size: tuple[int, int], seed: int, blur: float = 1.0) -> Image.Image:
    """A disc on a ground, in colours the seed chooses; `blur` below 1 is a preview in the making."""
    from PIL import ImageDraw, ImageFilter

    picture = Image.new("RGB", size, (40 + seed * 37 % 60, 60 + seed * 11 % 60, 150 + seed * 53 % 80))
    width, height = size
    side = min(size) * 0.28
    box = (width / 2 - side, height / 2 - side, width / 2 + side, height / 2 + side)
    ImageDraw.Draw(picture).ellipse(box, fill=(205, 40 + seed * 29 % 40, 40))
    return picture.filter(ImageFilter.GaussianBlur((1 - blur) * 14)) if blur < 1 else picture


def create_double(double: Double) -> FastAPI:
    """The double as an application."""
    app = FastAPI()

    @app.middleware("http")
    async def remember(request: Request, call_next: Any) -> Response:
        double.seen.append((request.method, request.url.path, dict(request.headers)))
        return await call_next(request)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        codes = {401: "not_authenticated", 404: "not_found"}
        body = {
            "code": codes.get(error.status_code, "invalid_request"),
            "message": f"Refused ({error.status_code}).",
            "retryable": False,
        }
        return JSONResponse({"error": body | {"detail": {}}}, error.status_code)

    add_login(app, double)
    add_jobs(app, double)
    add_models(app, lambda: double.models, double.who)
    add_inputs(app, lambda: double.assets)
    add_texts(app, double)
    add_sights(app, double)
    add_sharing(app, double)
    add_endpoints(app, double)
    return app


def add_login(app: FastAPI, double: Double) -> None:
    """Login, logout and who is asking."""

    @app.get("/portal/login")
    async def form(next: str = "/") -> HTMLResponse:
        return HTMLResponse(
            "<!doctype html><title>Log in</title><form method=post action=/portal/login>"
            "<input name=username><input name=password type=password autocomplete=current-password>"
            f"<input type=hidden name=next value='{next}'><button>Log in</button></form>"
        )

    @app.post("/portal/login")
    async def login(username: str = Form(), password: str = Form(), next: str = Form("/")) -> Response:
        if PEOPLE.get(username) != password:
            raise HTTPException(401)
        answer = RedirectResponse(next, 303)
        answer.set_cookie("atelier", f"session-of-{username}", httponly=True, samesite="lax")
        answer.set_cookie("atelier-refresh", "kept from webui", httponly=True)
        return answer

    @app.post("/portal/logout")
    async def logout() -> Response:
        answer = RedirectResponse("/portal/login", 303)
        answer.delete_cookie("atelier")
        return answer

    @app.post("/api/v1/auth/refresh")
    async def refresh(request: Request) -> dict[str, str]:
        return {"user": double.who(request)}

    @app.get("/api/v1/me")
    async def me(request: Request) -> dict[str, Any]:
        return {
            "id": "1",
            "username": double.who(request),
            "role": "designer",
            "permissions": double.permissions,
            "settings": {},
        }


def add_texts(app: FastAPI, double: Double) -> None:
    """Styles, and generation parameters read into fields."""

    @app.get("/api/v1/styles")
    async def styles(request: Request) -> dict[str, Any]:
        double.who(request)
        names = ("name", "prompt", "negative_prompt")
        own = [dict(zip(names, (name, *texts), strict=True)) for name, texts in double.styles.items()]
        return {"styles": [{"scope": "own"} | each for each in own]}

    @app.post("/api/v1/styles/import")
    async def take_styles(request: Request) -> dict[str, Any]:
        double.who(request)
        name, prompt, negative = (await request.body()).decode().splitlines()[1].split(",")
        double.styles[name] = (prompt, negative)
        return {"added": 1, "replaced": 0, "refused": []}

    @app.put("/api/v1/styles/{name:path}")
    async def keep_style(request: Request, name: str) -> dict[str, Any]:
        double.who(request)
        body = dict(await request.json())
        double.styles[name] = (body["prompt"], body["negative_prompt"])
        return body

    @app.delete("/api/v1/styles/{name:path}")
    async def drop_style(request: Request, name: str) -> Response:
        double.who(request)
        del double.styles[name]
        return Response(status_code=204)

    @app.post("/api/v1/infotext")
    async def infotext(request: Request) -> dict[str, Any]:
        double.who(request)
        body = await request.json()
        double.readings.append(body)
        text = body.get("text")
        if text is None:
            with Image.open(io.BytesIO(base64.b64decode(body["image"], validate=True))) as picture:
                text = str(picture.info.get("parameters", ""))
        return read(text)


def read(text: str) -> dict[str, Any]:
    """What POST /api/v1/infotext answers: the reading is the product's own, as if every model were here."""
    parameters, pasted = paste(text)
    return {
        "infotext": text,
        "parameters": parameters,
        "fields": pasted.fields,
        "overrides": pasted.overrides,
        "ignored": [each._asdict() for each in pasted.ignored],
    }


def add_jobs(app: FastAPI, double: Double) -> None:
    """Jobs, for their owners alone."""

    @app.post("/api/v1/jobs")
    async def submit(request: Request) -> Response:
        owner, body = double.who(request), await request.json()
        if double.refuse_with:
            return JSONResponse({"error": double.refuse_with}, 422)
        job = Job(f"job{next(double.serial)}", owner, body["txt2img_payload"], body["model"])
        job.endpoint = body.get("endpoint")
        double.jobs[job.id] = job
        task = asyncio.create_task(double.paint(job))
        double.running.add(task)
        task.add_done_callback(double.running.discard)
        return JSONResponse(double.view(job), 202)

    @app.get("/api/v1/jobs")
    async def listed(
        request: Request, state: str = "", limit: int = 20, shown: str = "mine"
    ) -> dict[str, Any]:
        name = double.who(request)
        wanted = {
            "mine": lambda job: job.owner == name,
            "shared": lambda job: job.owner != name and double.shares(job, name),
            "team": lambda job: job.visibility == "team" and double.shares(job, name),
            "studio": lambda job: job.visibility == "studio",
        }[shown]
        found = [job for job in reversed(double.jobs.values()) if wanted(job)]
        listed = [double.view(job) for job in found if state != "active" or job.state not in FINAL][:limit]
        return {"jobs": listed, "next": None}

    @app.get("/api/v1/jobs/queue")
    async def queue(request: Request) -> dict[str, Any]:
        name = double.who(request)
        waiting = [job for job in double.jobs.values() if job.state == "queued"]
        jobs = [job.id if job.owner == name else None for job in waiting]
        return {
            "waiting": len(waiting),
            "entries": [{"position": at, "job": job} for at, job in enumerate(jobs, 1)],
        }

    @app.get("/api/v1/jobs/{job_id}")
    async def one(request: Request, job_id: str) -> dict[str, Any]:
        return double.view(double.owned(request, job_id))

    @app.post("/api/v1/jobs/{job_id}/actions")
    async def act(request: Request, job_id: str) -> dict[str, Any]:
        job = double.owned(request, job_id)
        job.action = (await request.json())["action"]
        double.actions.append((job.id, str(job.action)))
        return double.view(job)


def add_sights(app: FastAPI, double: Double) -> None:
    """What is to be seen of jobs: events, previews and pictures."""

    @app.get("/api/v1/jobs/{job_id}/events")
    async def events(request: Request, job_id: str) -> StreamingResponse:
        job = double.owned(request, job_id)

        async def stream() -> AsyncIterator[str]:
            told = -1
            while True:
                if job.version != told:
                    told = job.version
                    yield f"event: job\ndata: {json.dumps(double.view(job))}\n\n"
                    if job.state in FINAL:
                        return
                await asyncio.sleep(0.01)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/api/v1/jobs/{job_id}/preview/{seq}")
    async def preview(request: Request, job_id: str, seq: int) -> Response:
        job = double.owned(request, job_id)
        out = io.BytesIO()
        draw((128, 128), 3, seq / (int(job.payload["steps"]) * int(job.payload["n_iter"]))).save(out, "JPEG")
        return Response(out.getvalue(), media_type="image/jpeg")

    @app.get("/files/{name}")
    async def file(request: Request, name: str, download: int = 0) -> Response:
        owner = double.who(request)
        job = next((each for each in double.jobs.values() if name in each.pictures), None)
        if job is None or not (job.owner == owner or double.shares(job, owner)):
            raise HTTPException(404)
        _, content, view = double.files[name]
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
        if download:
            headers["Content-Disposition"] = f'attachment; filename="00000-{view["seed"]}.png"'
        return Response(content, media_type="image/png", headers=headers)


def add_sharing(app: FastAPI, double: Double) -> None:
    """Teams, and who sees a job: the team's name is its id too."""

    @app.get("/api/v1/me/teams")
    async def teams(request: Request) -> list[dict[str, Any]]:
        name = double.who(request)
        return [
            {"id": team, "name": team, "members": members}
            for team, members in double.teams.items()
            if name in members
        ]

    @app.put("/api/v1/sharing/job/{job_id}")
    async def share(request: Request, job_id: str) -> dict[str, Any]:
        job, wish = double.owned(request, job_id), await request.json()
        job.visibility, job.team = wish["visibility"], wish.get("team")
        return {"owner": job.owner, "visibility": job.visibility, "team": job.team}


def add_endpoints(app: FastAPI, double: Double) -> None:
    """Endpoints, and which of them somebody chose."""

    @app.get("/api/v1/endpoints")
    async def endpoints(request: Request) -> list[dict[str, Any]]:
        double.who(request)
        return [{"name": name, "state": state} for name, state in double.endpoints.items()]

    @app.get("/api/v1/settings/me")
    async def settings(request: Request) -> dict[str, Any]:
        value = double.chosen.get(double.who(request), "automatic")
        return {"settings": [{"key": "atelier_endpoint", "value": value, "locked_by": double.locked_by}]}

    @app.patch("/api/v1/settings/me")
    async def change(request: Request) -> Response:
        name, values = double.who(request), (await request.json())["values"]
        if double.locked_by:
            error = {"code": "conflict", "message": "The option 'atelier_endpoint' is locked by the studio."}
            return JSONResponse({"error": error | {"retryable": False, "detail": {}}}, 409)
        double.chosen[name] = values["atelier_endpoint"]
        return JSONResponse({"settings": []})
