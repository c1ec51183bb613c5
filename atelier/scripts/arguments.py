"""Scripts' arguments: typed by name, or the peer's positional lists. An argument that is left out keeps its
default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from atelier.contract.errors import InvalidRequest

MOST_TEXT = 200_000
"""Characters of one text argument."""


class Arguments(BaseModel):
    """Base of the scripts' arguments: the order of the fields is that of the peer's positional lists, their
    aliases are its labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)
    script: ClassVar[str]
    """The name to ask for it by."""
    title: ClassVar[str]


class PromptMatrix(Arguments):
    """`a|b|c`: every combination of the parts after the first bar, as a grid."""

    script: ClassVar[str] = "prompt matrix"
    title: ClassVar[str] = "Prompt matrix"

    put_at_start: bool = Field(default=False, alias="Put variable parts at start of prompt")
    different_seeds: bool = Field(default=False, alias="Use different seed for each picture")
    prompt_type: Literal["positive", "negative"] = Field(default="positive", alias="Select prompt")
    joining: Literal["comma", "space"] = Field(default="comma", alias="Select joining char")
    margin: int = Field(default=0, ge=0, le=500, alias="Grid margins (px)")


class PromptsFromFile(Arguments):
    """One prompt a line, or `--prompt "..." --steps 20 ...`."""

    script: ClassVar[str] = "prompts from file or textbox"
    title: ClassVar[str] = "Prompts from file or textbox"

    iterate_seed: bool = Field(default=False, alias="Iterate seed every line")
    same_seed: bool = Field(default=False, alias="Use same random seed for all lines")
    insert_at: Literal["start", "end"] = Field(default="start", alias="Insert prompts at the")
    prompts: str = Field(default="", max_length=MOST_TEXT, alias="List of prompt inputs")


class XyzPlot(Arguments):
    """A grid over up to three settings. `*_choices` are the values picked from a menu; they count for an axis
    that has one, unless `text_inputs` is set or none is picked.
    """

    script: ClassVar[str] = "x/y/z plot"
    title: ClassVar[str] = "X/Y/Z plot"

    x_type: int | str = Field(default="Seed", alias="X type")
    x_values: str = Field(default="", max_length=MOST_TEXT, alias="X values")
    x_choices: list[str] = Field(default=[], alias="X choices")
    y_type: int | str = Field(default="Nothing", alias="Y type")
    y_values: str = Field(default="", max_length=MOST_TEXT, alias="Y values")
    y_choices: list[str] = Field(default=[], alias="Y choices")
    z_type: int | str = Field(default="Nothing", alias="Z type")
    z_values: str = Field(default="", max_length=MOST_TEXT, alias="Z values")
    z_choices: list[str] = Field(default=[], alias="Z choices")
    draw_legend: bool = Field(default=True, alias="Draw legend")
    include_lone_images: bool = Field(default=False, alias="Include Sub Images")
    include_sub_grids: bool = Field(default=False, alias="Include Sub Grids")
    no_fixed_seeds: bool = Field(default=False, alias="Keep -1 for seeds")
    vary_seeds_x: bool = Field(default=False, alias="Vary seeds for X")
    vary_seeds_y: bool = Field(default=False, alias="Vary seeds for Y")
    vary_seeds_z: bool = Field(default=False, alias="Vary seeds for Z")
    margin: int = Field(default=0, ge=0, le=500, alias="Grid margins (px)")
    text_inputs: bool = Field(default=False, alias="Use text inputs instead of dropdowns")

    @field_validator("x_choices", "y_choices", "z_choices", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value else value or []


Kind = TypeVar("Kind", bound=Arguments)


def read(kind: type[Kind], given: Sequence[Any] | Mapping[str, Any] | None) -> Kind:
    """The arguments of a script, by name (field or label) or by place. Raises InvalidRequest naming the first
    that cannot be used.
    """
    named = dict(given) if isinstance(given, Mapping) else _by_place(kind, list(given or ()))
    try:
        return kind.model_validate({name: value for name, value in named.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else kind.title
        field = kind.model_fields.get(name)
        label = field.alias if field else name
        raise InvalidRequest(
            f"The argument {label!r} of the script {kind.title!r} cannot be used: {first['msg']}.",
            detail={"script": kind.script, "argument": label},
        ) from error


def _by_place(kind: type[Arguments], given: list[Any]) -> dict[str, Any]:
    names = list(kind.model_fields)
    if len(given) > len(names):
        raise InvalidRequest(
            f"The script {kind.title!r} takes {len(names)} arguments, not {len(given)}. "
            "GET /sdapi/v1/script-info lists them.",
            detail={"script": kind.script, "arguments": len(names)},
        )
    return dict(zip(names, given, strict=False))
