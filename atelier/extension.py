"""Extensions: their manifest, the hooks they may implement, and whether they fit this version.

An extension is a folder `extensions/<name>/` with `extension.toml` and up to three modules: `schema`
(pydantic only), `ui`, `worker`. Hooks are keyword-only; an implementation may take a subset of the arguments.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pluggy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier.contract import CONTRACT_VERSION
from atelier.contract.control import ControlUnit, Preprocessing
from atelier.contract.models import Catalogue
from atelier.contract.parts import NetworkUse

log = logging.getLogger(__name__)

PROJECT = "atelier"
INSTALLED = Path(__file__).resolve().parents[1] / "extensions"
"""The extensions that came with this installation."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
Hooks = pluggy.PluginManager
"""Hooks with the extensions that implement them."""


class Manifest(BaseModel):
    """extension.toml. `contract` is a range `1.0` (this and newer minors) or `1.0-1.3`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: str
    description: str = ""
    contract: str = Field(pattern=r"^\d+\.\d+(-\d+\.\d+)?$")
    parts: tuple[str, ...] = ("schema",)
    enabled: bool = True


class TagMeaning(NamedTuple):
    """What a prompt tag asks for: the network to use (None where there is none of that name), and sentences
    on what was not understood.
    """

    use: NetworkUse | None
    warnings: tuple[str, ...] = ()


class ControlMeaning(NamedTuple):
    """What a member asks ControlNets for: the units in use, and fields that change nothing."""

    units: tuple[ControlUnit, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    """(field, reason)."""


class SchemaHooks:
    """Hooks of an extension's `schema` and `ui` side: they see requests, never weights."""

    @hookspec
    def schema(self) -> dict[str, type[BaseModel]]:
        """Request members this extension understands: name under `alwayson_scripts` -> its pydantic
        model. A name counts in any case.
        """
        raise AssertionError("a specification is never called")

    @hookspec(firstresult=True)
    def parse_tag(self, kind: str, arguments: list[str], catalogue: Catalogue) -> TagMeaning | None:
        """The meaning of an extra-network tag `<kind:arguments>` where these models may be named, None if it
        is not this extension's.
        """
        raise AssertionError("a specification is never called")

    @hookspec
    def resolve(self, title: str, member: BaseModel, catalogue: Catalogue) -> list[str] | None:
        """The tags that the member `title` (in lower case) of `alwayson_scripts` stands for, each as
        `<kind:name:...>`, where these models may be named; None if it is not this extension's. Raises
        UnknownName for a model that is not there, ValueError with a sentence for what cannot be.
        """
        raise AssertionError("a specification is never called")

    @hookspec(firstresult=True)
    def lift(self, title: str, member: Any, keep: Callable[[str], str]) -> Any:
        """The unchecked member `title` (in lower case) with each picture in it replaced by what `keep` makes
        of its text: it stores the picture and returns its id. None if the member is not this extension's.
        Raises ValueError with a sentence.
        """
        raise AssertionError("a specification is never called")

    @hookspec(firstresult=True)
    def control(self, title: str, member: BaseModel, catalogue: Catalogue) -> ControlMeaning | None:
        """The ControlNet units that the checked member `title` (in lower case) stands for; None if it is not
        this extension's. Raises UnknownName for a model that is not there, InvalidRequest.
        """
        raise AssertionError("a specification is never called")

    @hookspec
    def infotext(self, part: BaseModel, index: int) -> dict[str, Any]:
        """Entries this extension adds to the infotext of picture `index`, in order."""
        raise AssertionError("a specification is never called")

    @hookspec
    def controls(self, tab: str) -> list[dict[str, Any]]:
        """Controls this extension adds to a tab of the web UI."""
        raise AssertionError("a specification is never called")


class WorkerHooks:
    """Hooks of an extension's `worker` side: they stand around the networks at work."""

    @hookspec(firstresult=True)
    def bind(self, use: NetworkUse, path: Path) -> Any:
        """What is bound to a slot's modules for a network that a part uses, read from its file: one of the
        engine's networks. None if it is not this extension's.
        """
        raise AssertionError("a specification is never called")

    @hookspec(firstresult=True)
    def annotator(self, how: Preprocessing, path: Path | None) -> Any:
        """What draws the maps of a preprocessor: one of the engine's annotators. `path`: the file of its
        network, None where it needs none. None if it is not this extension's.
        """
        raise AssertionError("a specification is never called")

    @hookspec
    def before_load(self, model: BaseModel, path: Path) -> None:
        """A model file is about to be read."""
        raise AssertionError("a specification is never called")

    @hookspec
    def around_step(self, part: BaseModel, step: int, rows: list[Any]) -> None:
        """The rows of an evaluation are about to be put into a batch."""
        raise AssertionError("a specification is never called")

    @hookspec
    def after_decode(self, part: BaseModel, index: int, pixels: Any) -> Any:
        """Pixels (uint8, height x width x 3) of a finished picture, to be returned, changed or not."""
        raise AssertionError("a specification is never called")


def plugin_manager() -> Hooks:
    """A manager that knows both sets of hooks; nothing is registered yet."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(SchemaHooks)
    manager.add_hookspecs(WorkerHooks)
    return manager


@dataclass(frozen=True)
class Report:
    """One line of the compatibility report: `reason` says why an extension is not used."""

    folder: str
    name: str
    version: str
    usable: bool
    reason: str = ""


def check(root: Path) -> list[Report]:
    """The compatibility report over all folders of `root`. A bad extension disables itself alone; nothing is
    imported.
    """
    folders: Iterable[Path] = (
        sorted(each for each in root.iterdir() if each.is_dir()) if root.is_dir() else ()
    )
    return [_check_one(folder) for folder in folders if (folder / "extension.toml").is_file()]


def _check_one(folder: Path) -> Report:
    try:
        with (folder / "extension.toml").open("rb") as source:
            manifest = Manifest.model_validate(tomllib.load(source))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        reason = str(error).split("\n", 1)[0]
        return Report(folder.name, folder.name, "?", False, f"its extension.toml cannot be used: {reason}")
    reason = _mismatch(manifest, folder)
    return Report(folder.name, manifest.name, manifest.version, not reason, reason)


def _mismatch(manifest: Manifest, folder: Path) -> str:
    if manifest.name != folder.name:
        return f"it calls itself {manifest.name!r} but lies in the folder {folder.name!r}"
    low, _, high = manifest.contract.partition("-")
    own, first = _numbers(CONTRACT_VERSION), _numbers(low)
    last = _numbers(high) if high else (first[0], own[1])
    if not first <= own <= last:
        return f"it is for contract {manifest.contract}, this is {CONTRACT_VERSION}: install one that fits"
    if not manifest.enabled:
        return "it is switched off (enabled = false in its extension.toml)"
    missing = [part for part in manifest.parts if not (folder / f"{part}.py").is_file()]
    return f"its parts {', '.join(missing)} are missing" if missing else ""


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def load(part: str, root: Path = INSTALLED) -> Hooks:
    """The hooks of the usable extensions' modules `part` ("schema", "ui" or "worker"). One that cannot be
    loaded is left out and logged.
    """
    manager = plugin_manager()
    for report in check(root):
        file = root / report.folder / f"{part}.py"
        if not report.usable or not file.is_file():
            continue
        try:
            manager.register(_module(file, root), name=report.name)
        except Exception as error:  # noqa: BLE001  # one bad extension disables itself alone
            log.warning("The extension %s was left out, its %s failed: %s", report.name, part, error)
    return manager


@functools.cache
def installed(part: str) -> Hooks:
    """`load` of what came with this installation, done once."""
    return load(part)


def _module(file: Path, root: Path) -> ModuleType:
    if root == INSTALLED:
        return importlib.import_module(f"extensions.{file.parent.name}.{file.stem}")
    place = hashlib.sha256(str(file).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"atelier_extension_{place}_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # noqa: S101 - a .py file always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
