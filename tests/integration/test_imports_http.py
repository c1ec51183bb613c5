"""Imports over HTTP: the API, the portal's page, the command line, and models named with a new endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from portal import cli
from portal.app import create_app
from portal.services import audit
from portal.services.permissions import ROLES
from tests.integration.test_imports import Gate, Importing
from tests.jobs_studio import PASSWORD
from tests.lora_bytes import LORA, OTHER
from tests.sites import Site, publish
from tests.waiting import eventually

ORIGIN = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}
IMPORTS, TOKENS = "/api/v1/models/imports", "/api/v1/models/tokens"
TOKEN = "hf_a_token_that_nobody_may_see"


class Desk:
    """root looks after models, mia may have her own, ann neither; each with a bearer token."""

    def __init__(self, studio: Importing, client: TestClient, hub: Site, web: Site) -> None:
        self.studio, self.client, self.hub, self.web = studio, client, hub, web
        studio.services.roles.put(audit.SYSTEM, "maker", "", {*ROLES["designer"], "models.upload"})
        self._headers = {}
        for name, role in (("boss", "admin"), ("mia", "maker"), ("ann", "designer")):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
            self._headers[name] = {"Authorization": f"Bearer {login.json()['access_token']}"}

    def __call__(self, who: str, method: str, path: str, **body: Any) -> httpx.Response:
        return self.client.request(method, path, headers=self._headers[who], json=body or None)

    def ended(self, who: str, import_id: str) -> dict[str, Any]:
        """The import once it is final."""

        def look() -> dict[str, Any] | None:
            self.studio.importing.imports()
            view = self(who, "GET", f"{IMPORTS}/{import_id}").json()
            return view if view["state"] in ("succeeded", "failed", "cancelled") else None

        return eventually(look, within=120)  # type: ignore[return-value]

    def log_in(self, name: str) -> None:
        form = {"username": name, "password": PASSWORD, "next": "/portal/"}
        assert self.client.post("/portal/login", data=form, headers=SAME).status_code == 200

    def page(self, path: str = "", **form: Any) -> str:
        """A page, or what it says after a form."""
        url = f"/portal/models{path}"
        answer = self.client.post(url, data=form, headers=SAME) if form else self.client.get(url)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture
def desk(tmp_path: Path, sites: tuple[Site, Site]) -> Iterator[Desk]:
    studio = Importing(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path / "data", sites[0])
    # Without its lifespan: imports go on when the test says so.
    yield Desk(
        studio, TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5)), *sites
    )
    studio.close()


def test_an_import_is_asked_for_followed_and_found_among_the_models(desk: Desk) -> None:
    publish(desk.hub, "ink/brushes", {"ink.safetensors": LORA}, token=TOKEN)
    kept = desk("boss", "POST", TOKENS, name="hub", token=TOKEN, studio=True)
    assert (kept.status_code, kept.json()["site"]) == (201, desk.hub.name)
    asked = desk("boss", "POST", IMPORTS, source="hf:ink/brushes", kind="lora")
    assert asked.status_code == 202
    assert asked.headers["location"] == f"{IMPORTS}/{asked.json()['id']}"
    done = desk.ended("boss", asked.json()["id"])
    assert (done["state"], done["asker"], done["error"]) == ("succeeded", "boss", None)
    assert done["model"] in [each["title"] for each in desk("ann", "GET", "/api/v1/models?kind=lora").json()]
    told = desk("boss", "GET", IMPORTS).text + desk("boss", "GET", TOKENS).text + kept.text
    assert TOKEN not in told
    assert desk("boss", "DELETE", f"{TOKENS}/{kept.json()['id']}").status_code == 204
    assert desk("boss", "DELETE", f"{TOKENS}/{kept.json()['id']}").status_code == 404


def test_rights_and_what_is_somebody_elses(desk: Desk) -> None:
    url = desk.web.put("/m.safetensors", LORA)
    assert desk("ann", "POST", IMPORTS, source=url).status_code == 403
    assert desk("ann", "GET", IMPORTS).status_code == desk("ann", "GET", TOKENS).status_code == 403
    asked = desk("mia", "POST", IMPORTS, source=url, kind="lora").json()
    assert asked["own"] is True
    assert desk("mia", "POST", TOKENS, name="x", token=TOKEN, studio=True).status_code == 403
    assert desk("mia", "POST", IMPORTS, source="https://elsewhere.example/m.safetensors").status_code == 403
    for source in ("http://169.254.169.254/x", "https://[::1]/x", "s3://any/key"):
        assert desk("boss", "POST", IMPORTS, source=source).status_code == 403
    for source in ("file:///etc/passwd", "http://0x7f000001/", "x"):
        assert desk("boss", "POST", IMPORTS, source=source).status_code == 422
    other = desk("boss", "POST", IMPORTS, source=url, kind="lora").json()
    assert desk("mia", "GET", f"{IMPORTS}/{other['id']}").status_code == 404
    assert desk("mia", "POST", f"{IMPORTS}/{other['id']}/actions", action="cancel").status_code == 404
    assert [each["id"] for each in desk("mia", "GET", IMPORTS).json()] == [asked["id"]]
    cancelled = desk("boss", "POST", f"{IMPORTS}/{asked['id']}/actions", action="cancel").json()
    assert cancelled["state"] == "cancelled"
    again = desk("mia", "POST", f"{IMPORTS}/{asked['id']}/actions", action="retry").json()
    assert again["state"] == "queued"
    assert desk.ended("mia", asked["id"])["state"] == "succeeded"
    assert desk("mia", "POST", f"{IMPORTS}/{asked['id']}/actions", action="retry").status_code == 409


def test_an_endpoint_is_made_with_models_to_import_or_not_at_all(desk: Desk) -> None:
    lora = {"source": desk.web.put("/m.safetensors", LORA), "kind": "lora"}
    for wrong, status in (({"source": "nonsense"}, 422), ({"source": "http://10.0.0.1/x"}, 403)):
        answer = desk("boss", "POST", "/api/v1/endpoints", name="night", imports=[lora, wrong])
        assert answer.status_code == status
        assert desk("boss", "GET", "/api/v1/endpoints/night").status_code == 404
    assert desk("boss", "GET", IMPORTS).json() == []
    made = desk("boss", "POST", "/api/v1/endpoints", name="night", min_instances=0, imports=[lora])
    assert made.status_code == 201
    [asked] = desk("boss", "GET", IMPORTS).json()
    assert (asked["endpoint"], asked["own"]) == ("night", False)
    assert desk.ended("boss", asked["id"])["state"] == "succeeded"
    assert b"m.safetensors" in desk.studio.store.get("catalogue/night.json")
    only = {"endpoints.manage", "endpoints.read"}
    desk.studio.services.roles.put(audit.SYSTEM, "maker", "", only)
    answer = desk("mia", "POST", "/api/v1/endpoints", name="day", imports=[lora])
    assert answer.status_code == 403 and "models.manage" in answer.text
    assert desk("boss", "GET", "/api/v1/endpoints/day").status_code == 404


def test_the_page_asks_shows_cancels_and_keeps_tokens(desk: Desk) -> None:
    desk.log_in("boss")
    assert "Nothing is on its way" in desk.page()
    gate = Gate(LORA)
    source = desk.web.put("/slow.safetensors", gate)
    assert "The import was asked for" in desk.page("/imports", source=source, kind="lora", name="<b>Ink</b>")
    [asked] = desk.studio.imports.listed(desk.studio.keeper("kim"))
    desk.studio.begun(asked)
    shown = desk.page("/imports")
    assert "fetching" in shown and 'value="20"' in shown and f"cancel-{asked.id}" in shown
    assert 'hx-trigger="every 2s"' in shown and "&lt;b&gt;" not in shown
    assert "cancelled" in desk.page(f"/imports/{asked.id}", what="cancel")
    desk.studio.importing.imports()
    gate.opened.set()
    assert "queued" in desk.page(f"/imports/{asked.id}", what="retry")
    desk.ended("boss", asked.id)
    assert "slow.safetensors [" in desk.page("/imports") and "&lt;b&gt;Ink" in desk.page()
    said = desk.page("/tokens", name="hub", site="", token=TOKEN, studio="true")
    assert "The token is kept" in said and desk.hub.name in said and TOKEN not in said
    [token] = re.findall(r"/portal/models/tokens/(\w+)", said)
    assert "forgotten" in desk.page(f"/tokens/{token}", yes="1")
    for path, form, status in (
        ("/imports", {"source": "x"}, 422), ("/imports", {"source": "http://a.example@10.0.0.1/"}, 422),
        ("/imports", {"source": "hf:a/b", "kind": "odd"}, 422), ("/tokens", {"name": "x", "token": "y"}, 422),
        (f"/tokens/{token}", {"yes": "1"}, 404), ("/imports/none", {"what": "cancel"}, 404),
    ):  # fmt: skip
        answer = desk.client.post(f"/portal/models{path}", data=form, headers=SAME)
        assert answer.status_code == status and 'role="alert"' in answer.text, path
    endpoint = {
        "name": "night",
        "min_instances": "0",
        "sources": f"\n lora {desk.web.put('/n.safetensors', OTHER)}\n",
    }
    made = desk.client.post("/portal/endpoints", data=endpoint, headers=SAME)
    assert made.status_code == 200 and "on their way" in made.text
    assert desk.studio.imports.listed(desk.studio.keeper("kai"))[0].endpoint == "night"
    desk.log_in("ann")
    assert "Import a model" not in desk.page()
    assert desk.client.get("/portal/models/imports").status_code == 403


def test_the_command_line_follows_an_import_and_keeps_tokens(
    tmp_path: Path,
    sites: tuple[Site, Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import io

    hub, web = sites
    for name, value in (
        ("DATA_DIR", str(tmp_path)),
        ("HUB_URL", hub.url),
        ("IMPORT_NETWORKS", '["127.0.0.0/8"]'),
    ):
        monkeypatch.setenv(f"ATELIER_{name}", value)
    monkeypatch.chdir(tmp_path)
    publish(hub, "ink/brushes", {"ink.safetensors": LORA}, token=TOKEN)
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN + "\n"))
    assert cli.main(["model", "token", "add", "hub", "--token-stdin"]) == 0
    assert cli.main(["model", "import", "hf:ink/brushes", "--kind", "lora", "--name", "Ink"]) == 0
    assert cli.main(["model", "token", "list"]) == 0
    assert cli.main(["model", "token", "delete", "hub"]) == 0
    told = capsys.readouterr()
    assert "lora\tink.safetensors [" in told.out and f"hub\t{hub.name}\tused" in told.out
    assert TOKEN not in told.out + told.err
    assert cli.main(["model", "import", "hf:ink/brushes", "--kind", "lora"]) == 1
    assert "is gated" in capsys.readouterr().err
    assert cli.main(["model", "import", web.url, "--link"]) == 1
    assert cli.main(["model", "import", str(tmp_path), "--sha256", "ab" * 32]) == 1
    assert cli.main(["model", "token", "delete", "hub"]) == 1
    assert [*(tmp_path / "tasks").iterdir()] == []
