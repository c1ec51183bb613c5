"""The studio as on AWS in a real Chromium: `atelier up --simulate-aws`, the real worker on played instances
with GPUs, and everything between portal and worker through S3, SNS, SQS and SageMaker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from atelier.infotext import parse
from tests.browser.conftest import Visit
from tests.browser.stage import Studio, studio_up
from tests.browser.test_studio import PROMPT, at_work, fetched, shown
from tests.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Studio]:
    """A studio in a rehearsal whose clock goes fast."""
    place = tmp_path_factory.mktemp("rehearsal")
    with studio_up(place, checkpoint, "--simulate-aws", "--speed", "300") as studio:
        yield studio


def account(studio: Studio) -> dict[str, Any]:
    """What the rehearsal says of SageMaker's endpoint."""
    log = (studio.data_dir.parent / "up.log").read_text()
    found = re.search(r"Account  (\S+)", log)
    assert found is not None, log
    state = httpx.get(found[1], trust_env=False).json()
    return dict(state["endpoints"]["atelier-studio"])


def serving(studio: Studio, count: int) -> None:
    """Wait until so many instances serve, and the portal knows it."""
    eventually(lambda: account(studio)["serving"] == count, within=240, every=0.5, about="they never served")
    headers = {"Authorization": f"Bearer {studio.admin}"}

    def known() -> bool:
        said = httpx.get(f"{studio.url}/api/v1/endpoints/studio", headers=headers, trust_env=False)
        return bool(said.json()["instances"] == count)

    eventually(known, within=120, every=0.5, about="the portal never saw them")


def test_a_designer_gets_a_picture_from_a_worker_behind_sagemaker(visit: Visit, rehearsal: Studio) -> None:
    serving(rehearsal, 1)
    ada = at_work(visit, rehearsal)
    ada.number("steps", 12)
    ada.generate()
    ada.finished(timeout_s=240)
    stored = fetched(ada, shown(ada.page))
    assert stored.status_code == 200
    with Image.open(io.BytesIO(stored.content)) as picture:
        assert (picture.format, picture.size) == ("PNG", (128, 128))
        known = parse(picture.info["parameters"])
    assert (known["Prompt"], str(known["Steps"])) == (PROMPT, "12")
    assert picture.info["parameters"] == ada.page.locator("#html_info_txt2img").text_content()


def test_twenty_jobs_are_made_by_two_workers_and_each_once(rehearsal: Studio) -> None:
    headers = {"Authorization": f"Bearer {rehearsal.admin}"}
    with httpx.Client(base_url=rehearsal.url, headers=headers, trust_env=False, timeout=60) as http:
        changed = http.patch("/api/v1/endpoints/studio", json={"min_instances": 2})
        assert changed.status_code == 200, changed.text
        serving(rehearsal, 2)
        jobs = [rehearsal.job(steps=4, width=64, height=64, seed=number) for number in range(20)]

        def done() -> list[dict[str, Any]] | None:
            found = [http.get(f"/api/v1/jobs/{job}").json() for job in jobs]
            return found if all(each["state"] in ("succeeded", "failed") for each in found) else None

        made = eventually(done, within=300, every=1.0, about="some jobs never ended")
    assert {each["state"] for each in made} == {"succeeded"}
    assert [len(each["pictures"]) for each in made] == [1] * 20
    instances = rehearsal.data_dir / "rehearsal" / "instances" / "atelier-studio"
    answered = {
        log.parent.name: log.read_text().count("POST /invocations 200")
        for log in instances.glob("*/worker.log")
    }
    assert len(answered) == 2, answered
    assert min(answered.values()) > 0, answered
    assert sum(answered.values()) >= 21, answered
