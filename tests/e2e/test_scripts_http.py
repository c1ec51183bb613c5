"""Scripts and grids over real HTTP with a real worker: every way to see a finished job shows its grid."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops
from sqlalchemy import select

from atelier.contract.jobs import JobView
from portal.db.work import Job, Part
from portal.services import audit
from portal.services.ports import EndpointSpec, EndpointState
from tests.live_portal import SMALL, LivePortal
from tests.waiting import eventually

PLOT: dict[str, Any] = {
    "script_name": "x/y/z plot",
    "script_args": {"x_type": "Steps", "x_values": "1,2", "y_type": "Seed", "y_values": "5,6"},
}


def images(answer: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer["images"]]


def answered(live: LivePortal, **payload: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    answer = live.program().post("/sdapi/v1/txt2img", json={**SMALL, **payload})
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    return images(answer.json()), dict(info)


def test_with_save_images_the_answer_begins_with_a_grid_of_its_pictures(live: LivePortal) -> None:
    found, info = answered(live, n_iter=2, batch_size=2, steps=1, save_images=True)
    assert [image.size for image in found] == [(128, 128)] + [(64, 64)] * 4
    assert info["index_of_first_image"] == 1
    assert info["atelier"] == {"warnings": [], "ignored": []}
    assert info["infotexts"] == [image.info["parameters"] for image in found]
    for picture, corner in zip(found[1:], ((0, 0), (64, 0), (0, 64), (64, 64)), strict=True):
        box = (*corner, corner[0] + 64, corner[1] + 64)
        assert found[0].crop(box).tobytes() == picture.convert("RGB").tobytes()


def test_a_plot_shows_its_grid_and_on_demand_its_pictures(live: LivePortal) -> None:
    [alone], info = answered(live, **PLOT)
    assert alone.size[0] == 48 + 128
    assert info["index_of_first_image"] == 1
    assert "Script: X/Y/Z plot, X Type: Steps" in alone.info["parameters"]
    assert info["all_seeds"] == [5, 5, 6, 6]
    with_pictures = {**PLOT, "script_args": PLOT["script_args"] | {"include_lone_images": True}}
    found, info = answered(live, **with_pictures)
    assert [image.size for image in found[1:]] == [(64, 64)] * 4
    assert [
        f"Steps: {steps}, " in text for steps, text in zip((1, 2, 1, 2), info["infotexts"][1:], strict=True)
    ]
    assert info["infotexts"] == [image.info["parameters"] for image in found]


@pytest.mark.long
def test_the_cells_of_a_plot_are_made_by_several_workers_and_are_what_one_makes(live: LivePortal) -> None:
    wide = {"x_type": "Seed", "x_values": "1-6", "include_lone_images": True}
    plot = {"steps": 8, "script_name": "x/y/z plot", "script_args": wide}
    one, _ = answered(live, **plot)
    endpoints = live.services.work.endpoints
    endpoints.update(audit.SYSTEM, "local", {"slots": 1})
    endpoints.create(audit.SYSTEM, EndpointSpec("second", slots=1))
    try:
        eventually(lambda: endpoints.get("second").status.state is EndpointState.IN_SERVICE, within=240)
        several, info = answered(live, **plot)
        with live.services.database.reading() as session:
            newest = session.scalars(select(Job.id).order_by(Job.id.desc()).limit(1)).one()
            used = Counter(session.scalars(select(Part.endpoint).where(Part.job_id == newest)))
    finally:
        endpoints.update(audit.SYSTEM, "local", {"slots": EndpointSpec("").slots})
        eventually(lambda: endpoints.get("second").in_flight == 0, within=60)
        endpoints.delete(audit.SYSTEM, "second")
    assert info["all_seeds"] == [1, 2, 3, 4, 5, 6]
    assert used.keys() == {"local", "second"} and used.total() == 6
    for mine, alone in zip(several, one, strict=True):
        levels = ImageChops.difference(mine.convert("RGB"), alone.convert("RGB")).getextrema()
        assert max(high for _, high in levels) <= 1, levels


def test_prompts_of_a_list_make_a_picture_each_without_a_grid(live: LivePortal) -> None:
    lines = 'red\n--prompt "blue" --steps 1 --seed 9 --width 128'
    found, info = answered(
        live,
        prompt="circle",
        steps=2,
        save_images=True,
        script_name="Prompts from file or textbox",
        script_args=[False, False, "start", lines],
    )
    assert [image.size for image in found] == [(64, 64), (128, 64)]
    assert info["all_prompts"] == ["red circle", "blue circle"]
    assert info["all_seeds"] == [1234, 9]
    assert info["index_of_first_image"] == 0
    assert [each["field"] for each in info["atelier"]["ignored"]] == ["save_images"]


def test_the_last_event_of_a_job_has_its_grid(live: LivePortal) -> None:
    person = live.person()
    job_id = live.submit(person, **PLOT)
    last: JobView | None = None
    with person.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                last = JobView.model_validate_json(line.removeprefix("data: "))
                assert last.state.final == any(picture.grid for picture in last.pictures)
    assert last is not None
    assert last.state.final
    assert [picture.shown for picture in last.pictures] == [True] + [False] * 4
    saved = person.get(last.pictures[0].download_url)
    assert 'filename="grid-0000.png"' in saved.headers["content-disposition"]
    with Image.open(io.BytesIO(saved.content)) as image:
        assert image.size == (last.pictures[0].width, last.pictures[0].height)
    assert live.person("bob").get(last.pictures[0].url).status_code == 404


def test_the_scripts_are_listed_as_the_peer_lists_them(live: LivePortal, golden: Path) -> None:
    client = live.program()
    recorded = json.loads((golden / "lists" / "scripts.json").read_text())["txt2img"]
    listed = client.get("/sdapi/v1/scripts").json()["txt2img"]
    assert listed == recorded[: len(listed)]
    assert [each["name"] for each in client.get("/sdapi/v1/script-info").json()] == listed
    assert client.get("/sdapi/v1/script-info", auth=("ann", "wrong")).status_code == 401


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"script_name": "nope"}, "Script 'nope' not found"),
        ({"script_name": "x/y/z plot", "script_args": [6, "a"]}, "'a' is neither a number"),
        ({"script_name": "x/y/z plot", "script_args": {"x_type": "Steps", "x_values": "1-2000"}}, "2,000"),
        (
            {"script_name": "x/y/z plot", "script_args": {"x_type": "Sampler", "x_values": "Eule"}},
            "Sampler: Eule: There is no sampler named 'Eule'. Did you mean 'Euler'",
        ),
    ],
)
def test_a_script_that_cannot_run_is_refused_with_a_sentence(
    live: LivePortal, payload: dict[str, Any], said: str
) -> None:
    answer = live.program().post("/sdapi/v1/txt2img", json={**SMALL, **payload})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
