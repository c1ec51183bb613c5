"""What people say of a model: description, trigger words, weight; and the peer's files beside a model that
say it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

LARGEST_TEXT = 256 * 1024
"""Bytes of a description or a .json beside a model; a longer one is none."""
LARGEST_PREVIEW = 20 * 2**20
PREVIEWS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp", ".preview.webp", ".gif")
"""What a picture beside a model is called, after the model's stem, the first that is there."""
_PEERS = {
    "description": "description",
    "notes": "notes",
    "activation text": "activation_text",
    "preferred weight": "preferred_weight",
    "negative text": "negative_text",
    "sd version": "sd_version",
    "vae": "vae",
}
"""The peer's names in a model's .json."""


class Notes(BaseModel):
    """What the cards show and insert. A weight of 0 means the studio's usual one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field("", max_length=4_000)
    notes: str = Field("", max_length=20_000)
    activation_text: str = Field("", max_length=4_000)
    """Trigger words, written behind the tag in the prompt."""
    preferred_weight: float = Field(0.0, ge=-10, le=10)
    negative_text: str = Field("", max_length=4_000)
    """Written into the negative prompt."""
    sd_version: str = Field("", max_length=40)
    """The base it is said to be for, in the peer's words: SD1, SD2, SDXL, Unknown."""
    vae: str = Field("", max_length=255)
    """Of a checkpoint: the file name of the VAE that Automatic takes, "None" for the one inside it, "" for
    none in particular.
    """

    @field_validator("vae")
    @classmethod
    def _automatic_is_none_in_particular(cls, value: str) -> str:
        return "" if value == "Automatic" else value


def beside(path: Path) -> Notes:
    """The notes in the peer's files beside a model: X.json, then X.description.txt or X.txt. What is
    unreadable there says nothing.
    """
    found = _from_json(path.with_suffix(".json"))
    if not found.get("description"):
        texts = (_text(path.with_suffix(suffix)) for suffix in (".description.txt", ".txt"))
        found["description"] = next((text for text in texts if text), "")[:4_000]
    try:
        return Notes.model_validate(found)
    except ValueError:
        return Notes(description=str(found["description"]))


def preview_beside(path: Path) -> bytes | None:
    """The bytes of the picture beside a model, None without one."""
    for suffix in PREVIEWS:
        picture = path.with_suffix(suffix)
        if picture.is_file() and picture.stat().st_size <= LARGEST_PREVIEW:
            return picture.read_bytes()
    return None


def _from_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    found = {ours: told[theirs] for theirs, ours in _PEERS.items() if told.get(theirs) is not None}
    return {name: value if name == "preferred_weight" else str(value) for name, value in found.items()}


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > LARGEST_TEXT:
        return ""
    return path.read_text("utf-8", "replace").strip()
