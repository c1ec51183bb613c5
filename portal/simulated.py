"""`atelier up --simulate-aws`: the studio as on AWS, on an account that a process of this machine plays. The
process is told nothing of the studio, and answers what the studio has to know of the account.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

import httpx

from atelier.contract.errors import InvalidRequest
from portal.settings import PREFIX, Settings

FOLDER = "rehearsal"
"""Where a rehearsal keeps everything, below the data directory: a studio of its own, new each time, since the
account is gone with its process.
"""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "rehearsal",
    "AWS_SECRET_ACCESS_KEY": "rehearsal",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a role gives to a process on AWS. The simulated account does not look at it."""
MOST_INSTANCES = 2
ENDPOINT = {"name": "studio", "instance_type": "ml.g5.xlarge", "max_instances": MOST_INSTANCES}
"""The first endpoint."""
_NEEDED = ("rehearsal", "moto", "boto3", "flask")
_LISTS = ("ATELIER_AWS_SUBNETS", "ATELIER_AWS_SECURITY_GROUPS")


def check() -> None:
    """Raise InvalidRequest where what a rehearsal needs is not installed."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        raise InvalidRequest(
            f"A rehearsal of AWS needs {', '.join(lacking)}, which is not installed here: "
            "pip install 'atelier[rehearsal]'"
        )


def begun(settings: Settings) -> Settings:
    """The settings of a rehearsal: a folder of its own, emptied, and nothing of the studio beside it."""
    folder = settings.data_dir.resolve() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return settings.model_copy(update={"data_dir": folder, "database_url": None, "store_url": None})


class Account(NamedTuple):
    """How the process that plays the account is started, and where it answers once the account is set up."""

    argv: tuple[str, ...]
    url: str


def account(settings: Settings, speed: float) -> Account:
    """The account's process, on a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    threads = settings.worker_threads or max(1, len(os.sched_getaffinity(0)) // MOST_INSTANCES)
    argv = (
        *(sys.executable, "-m", "rehearsal.server", "--port", str(port), "--speed", f"{speed:g}"),
        *("--home", str(settings.data_dir.resolve() / "instances"), "--threads", str(threads)),
    )
    return Account(argv, f"http://127.0.0.1:{port}/_rehearsal/settings")


def in_account(settings: Settings, url: str) -> Settings:
    """The settings with the account's names and addresses, as the process at `url` tells them. The
    credentials are in this process's environment from now on, as a role's would be.
    """
    told: Mapping[str, str] = httpx.get(url, trust_env=False).raise_for_status().json()
    os.environ.update(CREDENTIALS)
    os.environ["AWS_DEFAULT_REGION"] = told["ATELIER_AWS_REGION"]
    named = {
        name.removeprefix(PREFIX).lower(): tuple(json.loads(value)) if name in _LISTS else value
        for name, value in told.items()
    }
    return settings.model_copy(update=named)
