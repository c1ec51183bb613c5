"""What the web UI draws for extensions: their answers to the hook `controls`, checked one by one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier.contract.models import ModelKind
from atelier.extension import Hooks

log = logging.getLogger(__name__)


class CardPage(BaseModel):
    """A page of cards beside the generation controls: one card for each model of a kind.

    `tag` is what a click puts into the prompt, with `{name}` and `{multiplier}` filled in; without one, a
    click chooses the checkpoint. `empty` is said where there is no such model. Pages stand by their `order`,
    which is 10 and 30 for the studio's own (textual inversions, checkpoints).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["cards"] = "cards"
    title: str = Field(min_length=1, max_length=40, pattern=r"\S")
    kind: ModelKind
    tag: str | None = Field(None, min_length=1, max_length=200)
    empty: str = Field("There is nothing here yet.", max_length=200)
    order: int = 100


class UnitSlider(BaseModel):
    """A number of a module: the unit's field it sets, and its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(pattern=r"^[a-z_]{1,40}$")
    label: str = Field(min_length=1, max_length=60)
    value: float
    minimum: float
    maximum: float
    step: float = Field(gt=0)


class UnitModule(BaseModel):
    """A preprocessor that a unit may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=60)
    label: str = Field(min_length=1, max_length=80)
    sliders: tuple[UnitSlider, ...] = ()


class UnitSection(BaseModel):
    """A section of units below the seed: each has a picture, a module that draws it, and a model of `kind`.
    Those that are on go into the request as `alwayson_scripts.<member>.args`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["units"] = "units"
    title: str = Field(min_length=1, max_length=40, pattern=r"\S")
    member: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    kind: ModelKind
    count: int = Field(ge=1, le=10)
    modules: tuple[UnitModule, ...] = Field(min_length=1)
    control_modes: tuple[str, ...]
    resize_modes: tuple[str, ...]
    passes: tuple[str, ...]


OWN_PAGES = {
    "txt2img": (
        CardPage(
            title="Textual Inversion",
            kind=ModelKind.EMBEDDING,
            tag="{name}",
            empty="No textual inversion is registered yet.",
            order=10,
        ),
        CardPage(
            title="Checkpoints",
            kind=ModelKind.CHECKPOINT,
            empty="No checkpoint is registered yet.",
            order=30,
        ),
    ),
}
"""The pages that stand without any extension, by the tab they stand in."""


def card_pages(tab: str, hooks: Hooks) -> list[CardPage]:
    """The pages of cards of a tab, in their order: our own, and those of the extensions in `hooks`. An answer
    that cannot be used is left out and logged, with the extension's name; of two pages of one title the
    first stands.
    """
    found = [*OWN_PAGES.get(tab, ())]
    for name, controls in answers(tab, hooks):
        for control in controls:
            if isinstance(control, Mapping) and control.get("type") == "units":
                continue
            if not isinstance(control, Mapping) or control.get("type") != "cards":
                log.warning("The extension %s: this version draws no control %.200r", name, control)
                continue
            try:
                page = CardPage.model_validate(dict(control))
            except ValidationError as error:
                log.warning("The extension %s: its cards cannot be drawn: %s", name, error)
                continue
            if page.title.lower() not in {each.title.lower() for each in found}:
                found.append(page)
    return sorted(found, key=lambda each: each.order)


def unit_sections(tab: str, hooks: Hooks) -> list[UnitSection]:
    """The sections of units of a tab. An answer that cannot be used is left out and logged; of two for one
    member the first stands.
    """
    found: list[UnitSection] = []
    for name, controls in answers(tab, hooks):
        for control in controls:
            if not isinstance(control, Mapping) or control.get("type") != "units":
                continue
            try:
                section = UnitSection.model_validate(dict(control))
            except ValidationError as error:
                log.warning("The extension %s: its units cannot be drawn: %s", name, error)
                continue
            if section.member not in {each.member for each in found}:
                found.append(section)
    return found


def answers(tab: str, hooks: Hooks) -> list[tuple[str, list[Any]]]:
    """(the extension's name, its controls for the tab), in the order of registration. One that fails is left
    out and logged: it takes nobody else's controls with it.
    """
    found: list[tuple[str, list[Any]]] = []
    for each in hooks.hook.controls.get_hookimpls():
        try:
            given: Any = each.function(**({"tab": tab} if "tab" in each.argnames else {}))
            found.append((each.plugin_name, list(given or ())))
        except Exception as error:  # noqa: BLE001  # one bad extension disables itself alone
            log.warning("The extension %s was left out of the page: %s", each.plugin_name, error)
    return found
