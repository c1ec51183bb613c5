"""`model_fn` and `predict_fn`, with their kin: the plain schema inside Hugging Face's and AWS's inference
containers, without a portal or a store. A container loads them from an archive's `code/inference.py`.

The container needs Python 3.11 and torch 2.10 or later.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atelier import modelfile
from atelier.contract import plain
from atelier.contract.errors import InvalidRequest, MalformedBody, ModelUnusable, UnsupportedMedia
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import Action
from atelier.resolve.plain import resolve_plain
from workers.engine import Engine, ModelFile
from workers.inference.executor import encoded

VAE_FOLDER = "VAE"
_JSON = "application/json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """An engine and what may be named to it. Any number of threads may predict with it at once."""

    engine: Engine
    catalogue: Catalogue
    settings: dict[str, Any]


def model_fn(model_dir: str) -> Model:
    """An engine on the content of a model archive: each `*.safetensors` file in `model_dir` is a checkpoint,
    the first by name the standard one; a `.yaml` of its stem is its configuration; the file in `VAE/`
    decodes.
    float16 on CUDA, else float32 on the CPU. Raises ModelUnusable.
    """
    root = Path(model_dir)
    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise ModelUnusable(
            f"There is no .safetensors checkpoint in {root}. `atelier model pack` writes an archive with one."
        )
    models: list[ModelRef] = []
    opened: dict[str, ModelFile] = {}
    for path in files:
        ref, file = _checkpoint(path)
        models.append(ref)
        opened[ref.sha256] = file
    settings: dict[str, Any] = {}
    for path in sorted((root / VAE_FOLDER).glob("*.safetensors"))[:1]:
        ref = modelfile.reference(path, ModelKind.VAE)
        models.append(ref)
        opened[ref.sha256] = ModelFile(path)
        settings["sd_vae"] = ref.filename
    cuda = torch.cuda.is_available()
    engine = Engine(
        lambda ref: opened[ref.sha256],
        device="cuda" if cuda else "cpu",
        dtype="float16" if cuda else "float32",
    )
    engine.start()
    catalogue = Catalogue(models=tuple(models), default_checkpoint=models[0].title)
    return Model(engine, catalogue, settings)


def input_fn(input_data: str | bytes, content_type: str) -> dict[str, Any]:
    """The body of a request. Raises UnsupportedMedia, MalformedBody and InvalidRequest."""
    if content_type.partition(";")[0].strip().lower() != _JSON:
        raise UnsupportedMedia(f"The body must be {_JSON}, not {content_type[:80]!r}.")
    try:
        body = json.loads(input_data)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"The body is no JSON that can be used: {str(error)[:200]}.") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return body


def predict_fn(data: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """`{"generated_images": [base64 JPEG, ...]}` for a plain request, bare or wrapped. The pictures of a
    call, and of calls at the same time, are made side by side. Remarks go to the log. Raises AtelierError.
    """
    request = plain.parse(data)
    if request.output == "s3":
        raise InvalidRequest("There is no store here to put pictures into. Leave `output` out.")
    resolution = resolve_plain(request, model.catalogue, settings=model.settings)
    handles = [model.engine.submit(part) for part in resolution.parts]
    try:
        results = [handle.result(timeout=None) for handle in handles]
    except BaseException:
        for handle in handles:
            handle.act(Action.CANCEL)  # nobody waits for the others any more
        raise
    warnings = [*resolution.warnings, *(text for result in results for text in result.warnings)]
    for warning in dict.fromkeys(warnings):
        log.warning("%s", warning)
    files = [
        encoded(part, picture).file.data
        for part, result in zip(resolution.parts, results, strict=True)
        for picture in result.pictures
    ]
    return {"generated_images": [base64.b64encode(data).decode() for data in files]}


def output_fn(prediction: Mapping[str, Any], accept: str) -> str:
    """The answer as JSON, whatever `accept` says: pictures are in it as text."""
    return json.dumps(prediction)


def _checkpoint(path: Path) -> tuple[ModelRef, ModelFile]:
    sidecar = path.with_suffix(".yaml")
    config = sidecar.read_text(encoding="utf-8", errors="replace") if sidecar.is_file() else None
    header = modelfile.read_header(path)
    family = modelfile.family(header, config)
    if family is None:
        raise ModelUnusable(f"{path.name} is no checkpoint of a known family.")
    changes = {"family": family, "resolution": modelfile.resolution(header)}
    return modelfile.reference(path, ModelKind.CHECKPOINT).model_copy(update=changes), ModelFile(path, config)
