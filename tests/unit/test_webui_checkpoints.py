"""Which checkpoint the quick settings show, and the size that goes with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from atelier.modelfile import Header, resolution
from tests.browser.model_double import model
from tests.browser.portal_double import Double, create_double
from webui.handlers.checkpoints import EMPTY, checkpoint_lister, native_size, pick
from webui.portal import Portal

DEMO = model("atelier-demo", resolution=(128, 128))
PAINTER, LARGE = model("painter"), model("large", family="sdxl")
ADA = {"atelier": "session-of-ada"}


def listed(
    double: Double, chosen: str | None, size: tuple[int, int], cookies: Mapping[str, str] = ADA
) -> list[Any]:
    """What the handler answers: the updates of checkpoint, advice and the two other lists."""
    portal = Portal("http://portal", transport=httpx.ASGITransport(create_double(double)))
    request: Any = SimpleNamespace(cookies=cookies)
    return list(asyncio.run(checkpoint_lister(portal)(request, chosen, *size)))


@pytest.mark.parametrize(
    ("stated", "size"),
    [
        ("128x128", (128, 128)),
        ("1024x768", (1024, 768)),
        ("8x8", None),
        ("99999x1", None),
        ("x", None),
        ("", None),
        ("512 x 512", None),
        ("４0x40", None),
    ],
)
def test_a_files_own_word_on_its_size_counts_only_where_it_makes_sense(
    stated: str, size: tuple[int, int] | None
) -> None:
    assert resolution(Header({}, {"modelspec.resolution": stated}, 8)) == size


def test_a_checkpoint_draws_at_the_size_it_states_else_at_its_familys() -> None:
    assert [native_size(each) for each in (DEMO, PAINTER, LARGE)] == [(128, 128), (512, 512), (1024, 1024)]
    assert native_size(LARGE | {"family": "sdxl-inpaint"}) == (1024, 1024)


def test_the_chosen_checkpoint_stays_and_else_the_standard_one_is_taken() -> None:
    models = [PAINTER, DEMO, LARGE]
    assert pick(models, LARGE["title"]) is LARGE
    assert pick(models, "gone.safetensors [0000000000]") is DEMO
    assert pick([PAINTER, LARGE], None) is PAINTER


def test_an_untouched_size_becomes_the_checkpoints_own() -> None:
    checkpoint, advice, *_ = listed(Double(), None, (512, 512))
    assert checkpoint["value"] == DEMO["title"]
    told = json.loads(advice["value"])
    assert (told["asked"], told["native"]) == ([512, 512], [128, 128])


def test_a_size_somebody_chose_stays() -> None:
    _, advice, *_ = listed(Double(), LARGE["title"], (640, 512))
    assert "value" not in advice


def test_the_hires_pass_and_the_refiner_may_use_every_checkpoint() -> None:
    *_, hires, refiner = listed(Double(), None, (512, 512))
    titles = [each["title"] for each in Double().models if each["kind"] == "checkpoint"]
    assert hires["choices"] == ["Use same checkpoint", *titles]
    assert refiner["choices"] == ["None", *titles]
    assert "value" not in hires


def test_without_a_checkpoint_the_list_says_who_can_add_one() -> None:
    double = Double()
    double.models = []
    assert listed(double, None, (512, 512))[0]["info"] == EMPTY


def test_a_refusal_of_the_portal_stands_under_the_list() -> None:
    assert "Refused (401)" in listed(Double(), None, (512, 512), cookies={})[0]["info"]
