"""The preprocessors of ControlNet: their names and the sliders they have, as in the peer (ControlNet
1.1.455).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.models import Catalogue, ModelKind, ModelRef


@dataclass(frozen=True)
class Slider:
    """A number that a preprocessor takes, and the bounds it has."""

    name: str
    value: float
    low: float
    high: float
    step: float = 1.0

    def taken(self, value: float) -> float:
        """The value within bounds; beyond them the standard one, as in the peer."""
        return value if self.low <= value <= self.high else self.value


RESOLUTION = Slider("Resolution", 512, 64, 2048, 8)
NOTHING = Slider("", 0.5, 0.0, 1.0)
"""In place of a slider that a preprocessor does not have: what the peer's infotext then says."""
DETECTOR = "ControlNetHED.pth"
"""The file of the network that finds edges (HED), as it is published."""


@dataclass(frozen=True)
class Preprocessor:
    """A preprocessor. `label` is what the peer's page calls it; `tags` the control types it is offered for;
    `file` the published file of the network it runs.
    """

    name: str
    label: str = ""
    resolution: Slider | None = RESOLUTION
    a: Slider | None = None
    b: Slider | None = None
    tags: tuple[str, ...] = ()
    file: str | None = None

    @property
    def shown(self) -> str:
        """What people choose it by."""
        return self.label or self.name

    @property
    def sliders(self) -> tuple[Slider, ...]:
        """The sliders it has, in the order of the page."""
        return tuple(each for each in (self.resolution, self.a, self.b) if each is not None)


_LINES = ("Canny", "Lineart", "Scribble", "Sketch", "MLSD")
_SOFT = ("SoftEdge", "Scribble", "Sketch")
_GAMMA = Slider("Gamma Correction", 1.0, 0.1, 2.0, 0.001)

SERVED: tuple[Preprocessor, ...] = (
    Preprocessor("none"),
    Preprocessor("invert", "invert (from white bg & black line)", None, tags=_LINES),
    Preprocessor("blur_gaussian", a=Slider("Sigma", 9.0, 0.01, 64.0, 0.01), tags=("Tile", "Blur")),
    Preprocessor(
        "canny",
        a=Slider("Low Threshold", 100, 1, 255),
        b=Slider("High Threshold", 200, 1, 255),
        tags=("Canny",),
    ),
    Preprocessor("threshold", a=Slider("Binarization Threshold", 127, 0, 255)),
    Preprocessor("lineart_standard", "lineart_standard (from white bg & black line)", tags=("Lineart",)),
    Preprocessor("hed", "softedge_hed", tags=_SOFT[:1], file=DETECTOR),
    Preprocessor("hed_safe", "softedge_hedsafe", tags=_SOFT[:1], file=DETECTOR),
    Preprocessor("scribble_hed", tags=_SOFT[1:], file=DETECTOR),
    Preprocessor("scribble_xdog", a=Slider("XDoG Threshold", 32, 1, 64), tags=_SOFT[1:]),
    Preprocessor("color", "t2ia_color_grid", tags=("T2I-Adapter",)),
    Preprocessor("shuffle", tags=("Shuffle",)),
    Preprocessor("recolor_luminance", a=_GAMMA, tags=("Recolor",)),
    Preprocessor("recolor_intensity", a=_GAMMA, tags=("Recolor",)),
    Preprocessor("tile_resample", a=Slider("Down Sampling Rate", 1.0, 1.0, 8.0, 0.01), tags=("Tile",)),
    Preprocessor("inpaint", "inpaint_global_harmonious", None, tags=("Inpaint",)),
)
"""Those that are run here."""

_NOT_SERVED: tuple[str, ...] = (
    "tile_colorfix", "tile_colorfix+sharp", "inpaint_only", "inpaint_only+lama",
    "openpose", "openpose_face", "openpose_faceonly", "openpose_full", "openpose_hand", "dw_openpose_full",
    "animal_openpose", "densepose", "densepose_parula", "depth", "depth_midas", "depth_zoe", "depth_leres",
    "depth_leres++", "depth_anything", "depth_anything_v2", "depth_hand_refiner", "normal_bae", "normal_map",
    "normal_midas", "normal_dsine", "lineart", "lineart_realistic", "lineart_coarse", "lineart_anime",
    "lineart_anime_denoise", "mlsd", "pidinet", "pidinet_safe", "softedge_pidinet", "softedge_pidisafe",
    "softedge_teed", "softedge_anyline", "pidinet_scribble", "scribble_pidinet", "segmentation",
    "seg_ufade20k", "oneformer_ade20k", "seg_ofade20k", "oneformer_coco", "seg_ofcoco", "anime_face_segment",
    "mobile_sam", "pidinet_sketch", "clip_vision", "reference_only", "reference_adain",
    "reference_adain+attn",
    "revision_clipvision", "revision_ignore_prompt", "mediapipe_face", "facexlib", "ip-adapter-auto",
    "ip-adapter_clip_sd15", "ip-adapter_clip_sdxl", "ip-adapter_clip_sdxl_plus_vith", "ip-adapter_face_id",
    "ip-adapter_face_id_plus", "ip-adapter_pulid", "instant_id_face_embedding", "instant_id_face_keypoints",
)  # fmt: skip
"""Those the peer has beside."""

CONTROL_TYPES: tuple[str, ...] = (
    "All", "Canny", "Depth", "IP-Adapter", "Inpaint", "Instant-ID", "InstructP2P", "Lineart", "MLSD",
    "NormalMap", "OpenPose", "Recolor", "Reference", "Revision", "Scribble", "Segmentation", "Shuffle",
    "SoftEdge", "SparseCtrl", "T2I-Adapter", "Tile",
)  # fmt: skip
"""What people sort preprocessors and models by."""


def find(name: str) -> Preprocessor:
    """The preprocessor of that name or label, in any case. Raises UnknownName, InvalidRequest for one of the
    peer's that is not run here.
    """
    wanted = name.strip().lower()
    for each in SERVED:
        if wanted in (each.name, each.shown.lower()):
            return each
    known = [each.name for each in SERVED]
    if wanted in _NOT_SERVED:
        near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
        hint = f" {near[0]} is the nearest that is." if near else ""
        raise InvalidRequest(
            f"The preprocessor {name!r} is not run here.{hint} Or give its finished map as the image, with "
            "the preprocessor 'none'.",
            detail={"kind": "preprocessor", "name": name[:200]},
        )
    raise UnknownName.of("preprocessor", name, known)


def annotator(catalogue: Catalogue, found: Preprocessor) -> ModelRef | None:
    """The network a preprocessor runs, None where it needs none. Raises InvalidRequest where its file is not
    here.
    """
    if found.file is None:
        return None
    model = catalogue.find(ModelKind.ANNOTATOR, found.file.rsplit(".", 1)[0])
    if model is None:
        raise InvalidRequest(
            f"The preprocessor {found.name} needs the file {found.file}, which is not registered. An "
            f"administrator can import it: atelier model import {found.file} --kind annotator.",
            detail={"kind": "annotator", "file": found.file},
        )
    return model
