"""What the templates tell the containers starts the real processes: first `prepare`, then portal and web UI,
with a simulated account in place of AWS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from atelier.processes import spawn
from tests.architecture.source import ROOT
from tests.browser.stage import free_port
from tests.moto_aws import Aws, environment, running
from tests.unit.cloudformation.templates import LARGE, studio
from tests.waiting import eventually

pytestmark = pytest.mark.long
PASSWORD = "the first password"


@pytest.fixture
def aws() -> Iterator[Aws]:
    with running() as account:
        account.bucket("studio")
        account.client("ecs").create_cluster(clusterName="atelier")
        account.client("sqs").create_queue(QueueName="atelier-ends")
        yield account


def told(stack: str, container: str, stand_ins: dict[str, str]) -> dict[str, str]:
    """The variables of a container, with what stands in the account in place of the templates' names."""
    definitions = studio(LARGE)[stack].resources()["Definition"]["Properties"]["ContainerDefinitions"]
    (found,) = [each for each in definitions if each["Name"] == container]
    values = {}
    for each in found["Environment"]:
        value = each["Value"]
        for name, real in stand_ins.items():
            value = value.replace(name, real)
        values[each["Name"]] = value
    return values


@contextmanager
def serving(words: list[str], values: dict[str, str], url: str, log: Path) -> Iterator[None]:
    child = spawn([sys.executable, *words], values, log=log, cwd=log.parent)
    try:
        eventually(
            lambda: httpx.get(url, trust_env=False, timeout=30).status_code == 200,
            within=180,
            every=0.5,
            about=f"{url} never said 200; see {log}: {log.read_text()[-2000:] if log.exists() else ''}",
        )
        yield
    finally:
        child.stop()


def test_prepare_portal_and_web_ui_start_with_what_the_templates_tell_them(
    aws: Aws, postgres_url: str, tmp_path: Path
) -> None:
    queue = aws.client("sqs").get_queue_url(QueueName="atelier-ends")["QueueUrl"]
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    names = {"<Bucket>": "studio", "<Queue>": queue, "<Cluster>": "atelier", "<Key.Arn>": key}
    around = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path),
    }
    here = around | environment(aws.url) | {"ATELIER_DATABASE_URL": postgres_url}
    here |= {"ATELIER_DATA_DIR": str(tmp_path / "data"), "ATELIER_DATABASE_PASSWORD": "unused"}

    secret = {"ATELIER_ADMIN_PASSWORD": PASSWORD}
    for _ in range(2):  # every task of a service prepares
        done = subprocess.run(
            [sys.executable, "-m", "portal.cli", "prepare"],
            env=told("portal", "prepare", names) | here | secret,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr

    portal_port, web_port = free_port(), free_port()
    portal = f"http://127.0.0.1:{portal_port}"
    values = told("portal", "portal", names) | here | {"ATELIER_PORTAL_PORT": str(portal_port)}
    with serving(["-m", "portal.cli", "portal"], values, f"{portal}/readyz", tmp_path / "portal.log"):
        answer = httpx.post(
            f"{portal}/api/v1/auth/token", json={"username": "admin", "password": PASSWORD}, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        endpoints = httpx.get(f"{portal}/api/v1/endpoints", headers=token, trust_env=False).json()
        assert endpoints == [], "the first endpoint on AWS is an administrator's decision"
        web = told("webui", "webui", names) | around
        web |= {"ATELIER_PORT": str(web_port), "ATELIER_PORTAL_URL": portal}
        address = f"http://127.0.0.1:{web_port}/ui/readyz"
        with serving(["-m", "webui.app"], web, address, tmp_path / "webui.log"):
            page = httpx.get(f"http://127.0.0.1:{web_port}/", trust_env=False, follow_redirects=False)
            assert page.headers["location"].endswith("/portal/login?next=/")
    assert PASSWORD not in (tmp_path / "portal.log").read_text()
    made = [each["Name"] for each in aws.client("secretsmanager").list_secrets()["SecretList"]]
    assert sorted(made) == ["atelier/keys/audit-key", "atelier/keys/job-key", "atelier/keys/signing-key"]
