"""The scripts of examples/ at a real studio: what they teach works as written."""

from __future__ import annotations

import base64
import io
import re
import sys
import threading
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from PIL import Image

from tests.live_portal import PASSWORD, LivePortal

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def loaded(name: str) -> ModuleType:
    spec = spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def token(live: LivePortal, name: str) -> str:
    body = {"username": name, "password": PASSWORD}
    answer = httpx.post(f"{live.url}/api/v1/auth/token", json=body, trust_env=False)
    return str(answer.raise_for_status().json()["access_token"])


@pytest.mark.long
def test_the_walk_makes_an_endpoint_and_a_picture_and_takes_it_away_again(
    live: LivePortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walkthrough = loaded("walkthrough")
    monkeypatch.setattr(walkthrough, "LOOK_SECONDS", 0.1)
    monkeypatch.setenv("ATELIER_KEY", token(live, "root"))
    offered = live.person("root").get("/api/v1/endpoints/types").json()
    place = tmp_path / "picture.jpg"
    words = [live.url, "portraits", "a red circle", "--instance-type", offered[0]["name"]]
    words += ["--width", "64", "--height", "128", "--num-inference-steps", "2"]
    walkthrough.main([*words, "--output", str(place), "--delete"])
    with Image.open(place) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 128))
    assert "portraits is in service after" in capsys.readouterr().out
    gone = live.person("root").get("/api/v1/endpoints/portraits")
    assert gone.status_code == 404 or gone.json()["state"] in ("deleting", "deleted")


def test_the_walk_says_what_the_studio_says(live: LivePortal) -> None:
    walkthrough = loaded("walkthrough")
    studio = walkthrough.Studio(live.url, token(live, "root"))
    there = studio.deploy(endpoint_name="local", instance_type="")
    assert there["state"] == "in_service", "it is there already"
    with pytest.raises(RuntimeError, match=r"endpoints\.manage"):
        walkthrough.Studio(live.url, token(live, "ann")).deploy(endpoint_name="mine", instance_type="")


@pytest.fixture
def webapp(live: LivePortal) -> Iterator[str]:
    module = loaded("webapp")
    server = module.serve(module.Studio(live.url, token(live, "ann"), "local"), port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_web_application_shows_the_picture_and_the_studios_sentence(webapp: str) -> None:
    assert 'name="length"' in httpx.get(webapp, trust_env=False).text
    form = {"prompt": "a red circle", "width": "64", "length": "128"}
    from_elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert httpx.post(webapp, data=form, headers=from_elsewhere, trust_env=False).status_code == 403
    page = httpx.post(webapp, data=form, timeout=180, trust_env=False)
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page.text)
    assert found, page.text
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        assert picture.size == (64, 128)
    wrong = httpx.post(webapp, data=form | {"width": "65", "prompt": '"><script>x</script>'}, trust_env=False)
    assert "divisible by 8" in wrong.text
    assert "<script>" not in wrong.text and "&lt;script&gt;" in wrong.text
