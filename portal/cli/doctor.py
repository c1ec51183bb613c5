"""atelier doctor and extensions check: what is set, and everything that is wrong with it, at once."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atelier import extension
from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.redaction import redacted as hidden
from atelier.storage.opening import open_store
from portal.bootstrap import build, open_database
from portal.cli.commands import command, group
from portal.cli.inspection import LEAST_FREE_BYTES, Wish, inspect
from portal.db import migrate
from portal.first_start import located
from portal.settings import Settings, load, redacted

if TYPE_CHECKING:
    from portal.cli.commands import Commands

PROGRAMS = {"webui.app": "webui", "torch": "worker", "diffusers": "worker", "gradio": "webui"}
"""Modules the studio on one machine needs, and the extra of the distribution that brings each."""

PROGRAMS_ON_AWS = {"boto3": "aws"}
"""The same for a portal on AWS, whose web UI and workers have images of their own."""


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    doctor = command(commands, "doctor", _doctor, "Print the settings and say what is wrong.")
    doctor.add_argument("--hashes", action="store_true", help="read every model file whole, and compare")
    extensions = group(commands, "extensions", "Look after extensions.")
    command(extensions, "check", _extensions, "Say which extensions fit this version.")


def _doctor(arguments: argparse.Namespace) -> int:
    try:
        settings = load()
    except InvalidRequest as error:  # what needs no settings is looked at all the same
        problems = [error.message, *_programs(None)]
    else:
        for name, value in redacted(settings).items():
            print(f"{name}={hidden(value)}")
        problems = [problem for check in CHECKS for problem in check(settings)]
        problems += _inside(settings, Wish(arguments.hashes))
    print()
    for problem in problems:
        print(f"- {problem}")
    print(f"{len(problems)} found." if problems else "Nothing is wrong.")
    return 1 if problems else 0


def _inside(settings: Settings, wish: Wish) -> list[str]:
    """What is wrong in the studio's data, where there is a database of this version that answers."""
    if settings.database_url is None and not (settings.data_dir / "atelier.db").exists():
        return []
    database = open_database(settings)
    try:
        database.ping()
        if migrate.pending(database):
            return []
    except AtelierError:
        return []  # told already
    finally:
        database.close()
    try:
        services = build(settings.model_copy(update={"roles": ("api",)}))
    except AtelierError as error:
        return [f"The studio's data could not be looked at: {error.message}"]
    try:
        return inspect(services, wish)
    finally:
        services.stop()


def _extensions(_arguments: argparse.Namespace) -> int:
    reports = extension.check(extension.INSTALLED)
    for each in reports:
        print(f"{each.name}\t{each.version}\t{'usable' if each.usable else f'disabled: {each.reason}'}")
    if not reports:
        print("No extensions are installed.")
    return 0 if all(each.usable for each in reports) else 1


def _data_directory(settings: Settings) -> list[str]:
    existing = next(
        each
        for each in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents)
        if each.exists()
    )
    if not os.access(existing, os.W_OK):
        return [f"The data directory {settings.data_dir.absolute()} cannot be written to."]
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        return [f"Only {free / 2**30:.1f} GiB are free at {existing}; models and pictures need more."]
    return []


def _secrets(settings: Settings) -> list[str]:
    found: list[Path] = sorted(settings.secrets_dir.iterdir()) if settings.secrets_dir.is_dir() else []
    return [
        f"Others may read {each}. Run: chmod 600 {each}"
        for each in found
        if stat.S_IMODE(each.stat().st_mode) & 0o077
    ]


def _database(settings: Settings) -> list[str]:
    if settings.database_url is None and not (settings.data_dir / "atelier.db").exists():
        return []
    database = open_database(settings)
    try:
        database.ping()
        return (
            ["The database is not of this version. Run: atelier migrate"] if migrate.pending(database) else []
        )
    except AtelierError as error:
        return [error.message]
    finally:
        database.close()


def _store(settings: Settings) -> list[str]:
    try:
        open_store(settings.store)
    except AtelierError as error:
        return [error.message]
    return []


def _addresses(settings: Settings) -> list[str]:
    found = []
    public = urlsplit(settings.url)
    if (
        public.scheme == "http"
        and public.hostname not in ("127.0.0.1", "localhost", "::1")
        and not settings.insecure_http
    ):
        found.append(
            f"People are to open {settings.url} over plain http, which is refused. "
            "Put https before it, or set ATELIER_INSECURE_HTTP=1 on a network you trust."
        )
    if settings.port == settings.portal_port and settings.port:
        found.append("ATELIER_PORT and ATELIER_PORTAL_PORT are the same.")
    return found


def _programs(settings: Settings | None) -> list[str]:
    needed = PROGRAMS_ON_AWS if settings is not None and settings.platform == "aws" else PROGRAMS
    missing = {name: extra for name, extra in needed.items() if not _importable(name)}
    return [
        f"{name} is not installed. Run: pip install 'atelier[{extra}]'" for name, extra in missing.items()
    ]


def _checkpoint(settings: Settings) -> list[str]:
    path = settings.demo_checkpoint
    return (
        [f"There is no file {path}, ATELIER_DEMO_CHECKPOINT."] if path and not located(path).is_file() else []
    )


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


CHECKS: tuple[Callable[[Settings], list[str]], ...] = (
    _data_directory,
    _secrets,
    _database,
    _store,
    _addresses,
    _programs,
    _checkpoint,
)
