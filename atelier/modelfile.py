"""What a model file says of itself without torch: header, hashes and family."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.contract import families
from atelier.contract.errors import ModelUnusable
from atelier.contract.limits import MAX_SIDE, MIN_SIDE
from atelier.contract.models import ModelKind, ModelRef

MAX_HEADER_BYTES = 100 * 2**20
_DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_CHUNK = 8 * 2**20
MAX_DIMENSIONS = 16
"""Sides of a tensor."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file: byte range [start, end) counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked safetensors header. `data_offset` is where the tensors' bytes begin in the file."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_offset: int


@dataclass(frozen=True)
class Hashes:
    """`sha256` of the file; `short` its first 10 digits; `legacy` the peer's old 8-digit hash (64 KiB at 1
    MiB).
    """

    sha256: str
    short: str
    legacy: str


def read_header(path: Path) -> Header:
    """The header of the safetensors file at `path`. Raises ModelUnusable, naming the file, for a damaged or
    lying one.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as source:

            def read(start: int, count: int) -> bytes:
                source.seek(start)
                return source.read(count)

            return header_in(path.name, size, read)
    except OSError as error:
        raise ModelUnusable(
            f"{path.name} cannot be read as a safetensors file: {str(error)[:200]}."
        ) from error


def header_in(name: str, size: int, read: Callable[[int, int], bytes]) -> Header:
    """The header of a safetensors file of `size` bytes, wherever they are: `read(start, count)` gives them.
    Raises ModelUnusable, and what `read` raises.
    """
    start = read(0, 8)
    length = int.from_bytes(start, "little")
    if size < 10 or length > min(size - 8, MAX_HEADER_BYTES):
        raise ModelUnusable(
            f"{name} is no safetensors file, or it is cut off: its header does not fit the file."
        )
    try:
        parsed = json.loads(read(8, length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise ModelUnusable(f"{name} cannot be read as a safetensors file: {why}.") from error
    if not isinstance(parsed, dict):
        raise ModelUnusable(f"{name} has a header that is no table of tensors.")
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(value) is not str for value in metadata.values()):
        raise ModelUnusable(f"{name} has metadata that are no table of texts.")
    tensors = {key: _entry(name, key, value) for key, value in parsed.items()}
    _check_ranges(name, tensors, size - 8 - length)
    return Header(tensors, metadata, 8 + length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON table in which no name stands twice: of two, readers would disagree which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name in its header stands twice")
    return found


def _entry(name: str, key: str, value: Any) -> TensorEntry:
    try:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        whole = isinstance(shape, list) and all(type(each) is int for each in (*shape, *offsets))
        start, end = offsets
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnusable(f"{name}: the header entry of {key[:100]!r} is malformed.") from error
    if not whole or type(dtype) is not str or len(shape) > MAX_DIMENSIONS:
        raise ModelUnusable(f"{name}: the header entry of {key[:100]!r} is malformed.")
    count = 1
    for side in shape:
        count *= side
    if min((0, *shape)) < 0 or start < 0 or end - start != count * _DTYPE_BYTES.get(dtype, -1):
        raise ModelUnusable(
            f"{name}: the entry of {key[:100]!r} contradicts itself ({dtype[:20]}, {str(shape)[:60]})."
        )
    return TensorEntry(dtype, tuple(shape), start, end)


def _check_ranges(name: str, tensors: dict[str, TensorEntry], data_bytes: int) -> None:
    """The format asks that tensors follow each other from the first byte to the last."""
    end = 0
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end or entry.end > data_bytes:
            raise ModelUnusable(
                f"{name}: the bytes of {key[:100]!r} overlap, leave a hole or lie beyond the end; it may be "
                "cut off."
            )
        end = entry.end
    if end != data_bytes:
        raise ModelUnusable(f"{name} has {data_bytes - end:,} bytes behind its tensors that belong to none.")


def hashes(path: Path) -> Hashes:
    """The hashes by which the peer and we know the file. Raises OSError."""
    whole, legacy = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            whole.update(chunk)
        source.seek(0x100000)
        legacy.update(source.read(0x10000))
    digest = whole.hexdigest()
    return Hashes(digest, digest[:10], legacy.hexdigest()[:8])


def reference(path: Path, kind: ModelKind = ModelKind.CHECKPOINT) -> ModelRef:
    """The file as the wire names it where no registry has it: by its own name and hashes. Raises OSError."""
    found = hashes(path)
    return ModelRef(
        kind=kind,
        name=path.stem,
        filename=path.name,
        sha256=found.sha256,
        blob_sha256=found.sha256,
        size=path.stat().st_size,
        short_hash=found.short,
        legacy_hash=found.legacy,
    )


def resolution(header: Header) -> tuple[int, int] | None:
    """Width and height in pixels a checkpoint says it was trained at (Stability's ModelSpec: "512x512"), None
    where it says nothing usable.
    """
    stated = re.fullmatch(r"(\d{2,4})x(\d{2,4})", str(header.metadata.get("modelspec.resolution", "")))
    if stated is None:
        return None
    width, height = int(stated[1]), int(stated[2])
    return (width, height) if min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE else None


UNET_PREFIX = "model.diffusion_model."
_FIRST_CONVOLUTION = f"{UNET_PREFIX}input_blocks.0.0.weight"
_VAE_PROOF = "first_stage_model.decoder.conv_in.weight"
_TEXT_PREFIXES = (
    ("conditioner.embedders.1.model.", "sdxl"),
    ("conditioner.embedders.0.model.", "sdxl-refiner"),
    ("cond_stage_model.model.", "sd2"),
    ("cond_stage_model.transformer.", "sd1"),
)
"""Where a checkpoint keeps its text encoders, and the family that does so; the first found decides."""
_SAYS_VELOCITY = re.compile(
    r"""^[ \t]*parameterization[ \t]*:[ \t]*["']?v["']?[ \t\r]*(#.*)?$|VScaling""", re.MULTILINE
)


def variant_of_channels(channels: int) -> str:
    """What follows a family's name for a UNet that sees so many channels: "-inpaint" ..., "" for the usual
    four.
    """
    return families.VARIANTS.get(channels, "")


def base_family(names: Collection[str]) -> str | None:
    """ "sd1", "sd2", "sdxl" or "sdxl-refiner" by a checkpoint's tensor names; None where no text encoder is
    among them.
    """
    for prefix, found in _TEXT_PREFIXES:
        if any(name.startswith(prefix) for name in names):
            return found
    return None


def predicts_velocity(header: Header, config: str | None = None) -> bool:
    """Whether a checkpoint says that it was trained on velocities: its configuration (`config`, the text of
    the .yaml beside it) first, then a tensor named `v_pred`, then Stability's ModelSpec in its metadata.
    """
    if config is not None and ("parameterization" in config or "scaling_config" in config):
        return _SAYS_VELOCITY.search(config) is not None
    stated = str(header.metadata.get("modelspec.prediction_type", ""))
    return "v_pred" in header.tensors or stated in ("v", "v_prediction", "velocity")


def family(header: Header, config: str | None = None) -> str | None:
    """The family of a checkpoint by its keys, its shapes and the configuration beside it: "sd1",
    "sd2-inpaint", "sd2-v", "sdxl-refiner" ..., or None for what is no known checkpoint.
    """
    first = header.tensors.get(_FIRST_CONVOLUTION)
    base = base_family(header.tensors)
    if first is None or len(first.shape) != 4 or _VAE_PROOF not in header.tensors or base is None:
        return None
    variant = variant_of_channels(first.shape[1])
    if base == "sd2" and f"{UNET_PREFIX}label_emb.0.0.weight" in header.tensors:
        variant += families.UNCLIP
    return base + variant + (families.VELOCITY if predicts_velocity(header, config) else "")
