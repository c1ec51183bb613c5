"""What is dispatched: a part with every name resolved, and what comes back for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract import CONTRACT_VERSION, canonical
from atelier.contract.control import ControlUnit
from atelier.contract.models import ModelRef


class Task(StrEnum):
    """The tasks of the published wire that this contract version carries."""

    TEXT_TO_IMAGE = "text-to-image"


class Action(StrEnum):
    """What a person may ask of running work, as the peer's buttons mean it. Interrupt and skip keep finished
    pictures.
    """

    FINISH_CURRENT = "finish_current"
    STOP_NOW = "stop_now"
    SKIP = "skip"
    CANCEL = "cancel"


class Frozen(BaseModel):
    """Base of the wire's values."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class EngineSettings(Frozen):
    """The options a picture depends on, by the peer's names where it has one. They travel with each part."""

    randn_source: Literal["GPU", "CPU", "NV"] = "GPU"
    """GPU and NV both mean the numbers of CUDA's generator; CPU those of torch's CPU generator."""
    clip_skip: int = Field(default=1, ge=1, le=12)
    emphasis: Literal["Original", "No norm", "Ignore", "None"] = "Original"
    comma_padding_backtrack: int = Field(default=20, ge=0, le=74)
    eta: float = Field(default=1.0, ge=0, le=2)
    """Ancestral noise: the request's `eta` or the option `eta_ancestral`."""
    eta_ddim: float = Field(default=0.0, ge=0, le=1)
    eta_noise_seed_delta: int = Field(default=0, ge=0, le=2**32)
    s_churn: float = Field(default=0.0, ge=0, le=1000)
    s_tmin: float = Field(default=0.0, ge=0)
    s_tmax: float = Field(default=0.0, ge=0)
    """0 means no upper bound."""
    s_noise: float = Field(default=1.0, ge=0, le=10)
    sigma_min: float = Field(default=0.0, ge=0, le=10_000)
    """Of the schedule; 0 means the model's own."""
    sigma_max: float = Field(default=0.0, ge=0, le=10_000)
    rho: float = Field(default=0.0, ge=0, le=1000)
    """Of the schedule; 0 means the scheduler's own."""
    always_discard_next_to_last_sigma: bool = False
    sgm_noise_multiplier: bool = False
    zero_terminal_snr: bool = False
    """The option `sd_noise_schedule` is "Zero Terminal SNR"."""
    beta_dist_alpha: float = Field(default=0.6, gt=0, le=50)
    beta_dist_beta: float = Field(default=0.6, gt=0, le=50)
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = "time_uniform"
    uni_pc_order: int = Field(default=3, ge=1, le=50)
    uni_pc_lower_order_final: bool = True
    s_min_uncond: float = Field(default=0.0, ge=0)
    """Below this sigma every other step does without the negative prompt (NGMS)."""
    s_min_uncond_all: bool = False
    skip_early_cond: float = Field(default=0.0, ge=0, le=1)
    """Share of the first steps that do without the negative prompt."""
    use_old_scheduling: bool = False
    use_old_emphasis_implementation: bool = False
    hires_fix_use_firstpass_conds: bool = False
    """The second pass's prompts are encoded under the first pass's networks, unless it has a checkpoint of
    its own.
    """
    pad_cond_uncond: bool = False
    """The shorter of prompt and negative prompt goes on with empty chunks."""
    pad_cond_uncond_v0: bool = False
    """The negative prompt is made as long as the prompt, cut off or with its last vector repeated."""
    use_downcasted_alpha_bar: bool = False
    """The noise levels are those of half precision."""
    use_old_karras_scheduler_sigmas: bool = False
    """Schedules with bounds go from 10 to 0.1."""
    extra_noise: float = Field(default=0.0, ge=0, le=1)
    """Added to what a second pass starts from (the option `img2img_extra_noise`)."""
    sdxl_clip_l_skip: bool = False
    """Clip skip chooses the layer of SDXL's first text encoder, too."""
    sdxl_crop_top: int = Field(default=0, ge=0, le=4096)
    sdxl_crop_left: int = Field(default=0, ge=0, le=4096)
    sdxl_refiner_low_aesthetic_score: float = Field(default=2.5, ge=0, le=10)
    sdxl_refiner_high_aesthetic_score: float = Field(default=6.0, ge=0, le=10)
    auto_vae_precision: bool = True
    """An autoencoder whose numbers half precision cannot hold runs again in float32."""
    auto_vae_precision_bfloat16: bool = False
    """In bfloat16 instead, where the engine's own format is another."""
    inpainting_mask_weight: float = Field(default=1.0, ge=0, le=1)


class Refiner(Frozen):
    """A second checkpoint that takes over: at the share `switch_at` of the noise, or of the steps."""

    checkpoint: ModelRef
    vae: ModelRef | None = None
    """Its autoencoder, None for the one inside it."""
    switch_at: float = Field(ge=0, le=1)
    by_sampling_steps: bool = False
    passes: Literal["first pass", "second pass", "both passes"] = "second pass"
    """With hires fix: the passes it takes part in. Without, it always does."""


class NetworkUse(Frozen):
    """A network that changes the checkpoint: how strongly it acts on the text encoders and on the UNet, and
    the rank it is cut to (None: all of it).
    """

    model: ModelRef
    called: str = ""
    """The name by which the prompt calls it."""
    te: float = 1.0
    unet: float = 1.0
    dyn: int | None = Field(default=None, ge=1)


class HiresPass(Frozen):
    """The second pass of hires fix. Sizes are (width, height) in pixels: the first pass's picture becomes
    `upscaled`, of which the middle `size` is kept and denoised again.
    """

    size: tuple[int, int]
    upscaled: tuple[int, int]
    upscaler: str
    steps: int
    denoising_strength: float
    sampler: str
    scheduler: str
    checkpoint: ModelRef | None = None
    """None for the first pass's own."""
    vae: ModelRef | None = None
    """The autoencoder of `checkpoint`, None for the one inside it."""
    prompt: str
    negative_prompt: str
    networks: tuple[NetworkUse, ...] = ()
    """Those of its own prompt: the first pass's do not act here."""


class PictureFormat(Frozen):
    """The file a finished picture becomes."""

    name: Literal["png", "jpg", "webp", "avif"] = "png"
    quality: int = Field(default=80, ge=1, le=100)
    lossless: bool = False
    """Of WebP."""
    with_infotext: bool = True


class ResolvedPart(Frozen):
    """Everything one batch of pictures depends on: no names left to look up, no option left to a worker.

    width, height in pixels; seeds[i], subseeds[i] belong to picture i; seed_resize_from is (width, height), 0
    where unused.
    """

    contract: str = CONTRACT_VERSION
    task: Task = Task.TEXT_TO_IMAGE
    checkpoint: ModelRef
    vae: ModelRef | None = None
    prompt: str
    negative_prompt: str
    sampler: str
    scheduler: str
    """The label of the schedule really used, as the infotext shows it: "Automatic" only where the sampler has
    none of its own.
    """
    steps: int
    cfg_scale: float
    width: int
    height: int
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    subseed_strength: float = 0.0
    seed_resize_from: tuple[int, int] = (0, 0)
    tiling: bool = False
    hires: HiresPass | None = None
    refiner: Refiner | None = None
    embeddings: tuple[ModelRef, ...] = ()
    """Textual inversions the prompts name, in the order of their use."""
    networks: tuple[NetworkUse, ...] = ()
    """LoRA, their relatives and hypernetworks, in the order in which the prompt names them."""
    control: tuple[ControlUnit, ...] = ()
    """The ControlNet units in use."""
    settings: EngineSettings = EngineSettings()
    format: PictureFormat = PictureFormat()
    whole_numbers: bool = False
    """Whether 7.0 stands in the infotext as 7: so do the peer's pages, and not its API."""
    infotext_omits: tuple[str, ...] = ()
    """Keys of the parameters line that the caller's options leave out ("Model hash", "Version" ...)."""
    extra_params: dict[str, Any] = {}
    """Further infotext entries in their order (the peer's extra_generation_params)."""

    @property
    def batch_size(self) -> int:
        """How many pictures the part makes."""
        return len(self.seeds)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Every model file the part is made with."""
        passes = [self, *(each for each in (self.refiner, self.hires) if each is not None)]
        files = [file for each in passes for file in (each.checkpoint, each.vae)]
        used = [*self.networks, *(self.hires.networks if self.hires else ())]
        units = [file for unit in self.control for file in (unit.model, unit.preprocessing.annotator)]
        found = [*files, *self.embeddings, *(use.model for use in used), *units]
        return tuple(dict.fromkeys(file for file in found if file is not None))

    def recipe(self) -> str:
        """Canonical JSON of the part: what makes these pictures again, whoever asked for them."""
        return canonical.dumps(self.model_dump(mode="json"))

    @property
    def recipe_hash(self) -> str:
        """Hex sha256 of the recipe."""
        return canonical.sha256(self.model_dump(mode="json"))


class JobStamp(Frozen):
    """The `job` member of a body: who it is for. Names no location; believed only with its signature."""

    job: str
    part: str
    attempt: int
    endpoint: str
    signature: str = ""


class PictureResult(Frozen):
    """A stored picture of an attempt."""

    index: int
    key: str
    sha256: str
    size: int
    width: int
    height: int
    seed: int
    subseed: int
    infotext: str
    recipe_hash: str
    complete: bool = True
    """False when it was stopped before its last step."""


class MapResult(Frozen):
    """What a ControlNet's preprocessor made of its picture, stored by an attempt, for the unit `unit`."""

    unit: int
    key: str
    sha256: str
    size: int
    width: int
    height: int


class PartResult(Frozen):
    """result.json of an attempt, written last."""

    job: str
    part: str
    attempt: int
    pictures: tuple[PictureResult, ...]
    maps: tuple[MapResult, ...] = ()
    stopped: bool = False
    cancelled: bool = False
    warnings: tuple[str, ...] = ()
    timeline: dict[str, float] = {}
    """Phase -> unix seconds at which it began; see atelier.contract.timeline."""


class ProgressState(Frozen):
    """progress.json of a running attempt. `seq` grows with each write: that is the worker's heartbeat for the
    part.
    """

    seq: int
    phase: str
    step: int
    steps: int
    pictures_done: int
    pictures: int
    preview: int | None = None
    """The `seq` of the newest preview JPEG."""
    at: float = 0.0


class PartControl(Frozen):
    """control.json of a part: the attempt that counts, and what was asked of it."""

    attempt: int
    action: Action | None = None


class EndpointControl(Frozen):
    """All open actions of an endpoint, by part id."""

    parts: dict[str, PartControl] = {}


class GpuState(Frozen):
    """What the driver says of a worker's GPU: bytes of its memory, and percent of the last moment in which it
    computed.
    """

    memory_used: int
    memory_total: int
    busy: int


class InstanceState(Frozen):
    """What a worker says of itself every 15 s."""

    endpoint: str
    instance: str
    contract: str = CONTRACT_VERSION
    engine: str
    status: Literal["starting", "ready", "draining", "stopped"]
    at: float
    hot: tuple[str, ...] = ()
    """blob_sha256 of the weights that are loaded."""
    slots: int = 1
    parts: int = 0
    rows: int = 0
    forwards: int = 0
    weight_changes: int = 0
    steps_per_second: float = 0.0
    memory_used: int = 0
    memory_free: int = 0
    """Bytes that are left of what the engine may use."""
    device: str = "cpu"
    gpu: GpuState | None = None
