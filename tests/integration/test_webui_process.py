"""The web UI's process: light, silent towards the world, and gone with its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

from tests.browser.portal_double import Double
from tests.browser.stage import PortalThread, on_stage, webui_process

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "sqlalchemy",
    "alembic",
    "boto3",
    "jose",
    "pwdlib",
    "portal",
    "workers",
}


def python(code: str, **environment: str) -> str:
    env = {"PATH": os.environ["PATH"], **environment}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return answer.stdout


def test_building_the_page_loads_no_torch_no_database_and_no_cloud(repository: Path) -> None:
    code = (
        "import asyncio, json, sys\n"
        "from webui.app import create_app\n"
        "from webui.settings import Settings\n"
        "async def build(): return create_app(Settings())\n"
        "asyncio.run(build())\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    loaded = set(json.loads(python(code, PYTHONPATH=str(repository))))
    assert {"gradio", "webui", "atelier"} <= loaded
    assert not loaded & HEAVY


def test_importing_the_process_reads_no_environment_and_loads_no_gradio(repository: Path) -> None:
    code = "import sys, webui.app; print('gradio' in sys.modules)"
    assert python(code, PYTHONPATH=str(repository), ATELIER_PORT="not a number").strip() == "False"


def test_wrong_settings_are_named(repository: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(repository),
        "ATELIER_PORT": "70000",
        "ATELIER_LOG_LEVEL": "loud",
    }
    answer = subprocess.run(
        [sys.executable, "-m", "webui.app"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode != 0
    assert "port" in answer.stderr
    assert "log_level" in answer.stderr


def test_it_goes_when_its_parent_goes(tmp_path: Path) -> None:
    with on_stage(Double(step_s=0), tmp_path / "webui.log") as stage:
        stage.webui.release()
        assert stage.webui.wait(60) in (0, -15)


def test_it_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    try:
        with webui_process("http://127.0.0.1:9", tmp_path / "webui.log") as (_, child):
            assert [each.name.startswith("atelier-webui-") for each in scratch.iterdir()] == [True]
        assert child.poll() is not None
    finally:
        del os.environ["TMPDIR"]
    assert list(scratch.iterdir()) == []


@pytest.mark.long
def test_it_runs_in_an_environment_made_from_its_own_extra_alone(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    interpreter = home / "bin" / "python"
    subprocess.run(
        [
            interpreter,
            "-m",
            "pip",
            "install",
            "-q",
            "--prefer-binary",
            "-c",
            "constraints.txt",
            f"{repository}[webui]",
        ],
        cwd=repository,
        timeout=900,
        check=True,
    )
    listed = subprocess.run(
        [interpreter, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    installed = {each["name"].lower() for each in json.loads(listed.stdout)}
    assert "gradio" in installed
    assert not installed & {"torch", "sqlalchemy", "boto3", "python-jose", "diffusers", "transformers"}
    portal = PortalThread(Double(step_s=0))
    portal.start()
    try:
        with webui_process(portal.url, tmp_path / "webui.log", str(interpreter)) as (url, _):
            page = httpx.get(url + "/", cookies={"atelier": "session-of-ada"}, trust_env=False)
            assert page.status_code == 200
            assert "/ui/studio.js" in page.text
    finally:
        portal.stop()
