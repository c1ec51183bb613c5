"""The peer's names for samplers, schedulers and scripts (AUTOMATIC1111 v1.10.1), in its order, with aliases
and options.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atelier.contract.errors import UnknownName

CHURN = frozenset({"s_churn", "s_tmin", "s_tmax", "s_noise"})
STOCHASTIC = frozenset({"eta", "s_noise"})
TIMESTEP_SAMPLERS = frozenset({"DDIM", "DDIM CFG++", "PLMS", "UniPC"})


@dataclass(frozen=True)
class Sampler:
    """A sampler by the peer's name. `uses` names the request fields that change its pictures; `served` says
    whether ours runs it.
    """

    name: str
    aliases: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    uses: frozenset[str] = frozenset()
    served: bool = False

    def counted(self, steps: int) -> int:
        """Steps as the peer counts them in prompt schedules: two for each of a sampler of second order."""
        return steps * 2 if self.second_order else steps

    @property
    def scheduler(self) -> str:
        """The label of the schedule that "Automatic" means for this sampler, "Automatic" where it has none of
        its own.
        """
        named = self.options.get("scheduler")
        return next((each.label for each in SCHEDULERS if each.name == named), "Automatic")

    @property
    def discards(self) -> bool:
        """Whether it leaves the next-to-last sigma of its schedule out."""
        return "discard_next_to_last_sigma" in self.options

    @property
    def second_order(self) -> bool:
        """Whether prompt schedules count two steps for each of its steps."""
        return "second_order" in self.options

    @property
    def ignores_schedulers(self) -> bool:
        """Whether it knows training timesteps only, so that no schedule changes its pictures."""
        return self.name in TIMESTEP_SAMPLERS


@dataclass(frozen=True)
class Scheduler:
    """A noise schedule by the peer's name and label."""

    name: str
    label: str
    aliases: tuple[str, ...] | None = None
    default_rho: float = -1.0
    need_inner_model: bool = False
    served: bool = False


SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler("automatic", "Automatic", served=True),
    Scheduler("uniform", "Uniform", need_inner_model=True, served=True),
    Scheduler("karras", "Karras", default_rho=7.0, served=True),
    Scheduler("exponential", "Exponential", served=True),
    Scheduler("polyexponential", "Polyexponential", default_rho=1.0, served=True),
    Scheduler("sgm_uniform", "SGM Uniform", aliases=("SGMUniform",), need_inner_model=True, served=True),
    Scheduler("kl_optimal", "KL Optimal", served=True),
    Scheduler("align_your_steps", "Align Your Steps", served=True),
    Scheduler("simple", "Simple", need_inner_model=True, served=True),
    Scheduler("normal", "Normal", need_inner_model=True, served=True),
    Scheduler("ddim", "DDIM", need_inner_model=True, served=True),
    Scheduler("beta", "Beta", need_inner_model=True, served=True),
)

_SECOND = {"second_order": "True"}
_BROWNIAN = {"brownian_noise": "True"}
_DISCARD = {"discard_next_to_last_sigma": "True"}
_ENSD = {"uses_ensd": "True"}

SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), {"scheduler": "karras"}, served=True),
    Sampler(
        "DPM++ SDE", ("k_dpmpp_sde",), {"scheduler": "karras"} | _SECOND | _BROWNIAN, STOCHASTIC, served=True
    ),
    Sampler(
        "DPM++ 2M SDE", ("k_dpmpp_2m_sde",), {"scheduler": "exponential"} | _BROWNIAN, STOCHASTIC, served=True
    ),
    Sampler(
        "DPM++ 2M SDE Heun",
        ("k_dpmpp_2m_sde_heun",),
        {"scheduler": "exponential"} | _BROWNIAN | {"solver_type": "heun"},
        STOCHASTIC,
        served=True,
    ),
    Sampler(
        "DPM++ 2S a", ("k_dpmpp_2s_a",), {"scheduler": "karras"} | _ENSD | _SECOND, STOCHASTIC, served=True
    ),
    Sampler(
        "DPM++ 3M SDE",
        ("k_dpmpp_3m_sde",),
        {"scheduler": "exponential"} | _DISCARD | _BROWNIAN,
        STOCHASTIC,
        served=True,
    ),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral"), _ENSD, frozenset({"eta"}), served=True),
    Sampler("Euler", ("k_euler",), {}, CHURN, served=True),
    Sampler("LMS", ("k_lms",), served=True),
    Sampler("Heun", ("k_heun",), _SECOND, CHURN, served=True),
    Sampler("DPM2", ("k_dpm_2",), {"scheduler": "karras"} | _DISCARD | _SECOND, CHURN, served=True),
    Sampler(
        "DPM2 a",
        ("k_dpm_2_a",),
        {"scheduler": "karras"} | _DISCARD | _ENSD | _SECOND,
        STOCHASTIC,
        served=True,
    ),
    Sampler("DPM fast", ("k_dpm_fast",), _ENSD, STOCHASTIC, served=True),
    Sampler("DPM adaptive", ("k_dpm_ad",), _ENSD, frozenset({"eta"}), served=True),
    Sampler("Restart", ("restart",), {"scheduler": "karras"} | _SECOND, served=True),
    Sampler("DDIM", ("ddim",), {}, frozenset({"eta"}), served=True),
    Sampler("DDIM CFG++", ("ddim_cfgpp",), {}, frozenset({"eta"}), served=True),
    Sampler("PLMS", ("plms",), served=True),
    Sampler("UniPC", ("unipc",), served=True),
    Sampler("LCM", ("k_lcm",), served=True),
)

LATENT_UPSCALERS: tuple[str, ...] = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
"""Ways of hires fix to enlarge the latent itself, in the peer's order."""

PIXEL_UPSCALERS: tuple[str, ...] = ("None", "Lanczos", "Nearest")
"""Upscalers that need no model, in the peer's order."""

SELECTABLE_SCRIPTS: tuple[str, ...] = ("prompt matrix", "prompts from file or textbox", "x/y/z plot")
ALWAYS_ON_SCRIPTS: tuple[str, ...] = (
    "comments", "controlnet", "extra options", "hypertile", "refiner", "sampler", "seed", "soft inpainting",
)  # fmt: skip

_SUFFIXES = {
    " karras": "Karras",
    " exponential": "Exponential",
    " polyexponential": "Polyexponential",
    " sgm uniform": "SGM Uniform",
    " sgmuniform": "SGM Uniform",
}


def find_scheduler(name: str) -> Scheduler:
    """The schedule of that name, label or alias, whatever its case. Raises UnknownName."""
    wanted = name.strip().lower()
    for each in SCHEDULERS:
        if wanted in {each.name, each.label.lower(), *(alias.lower() for alias in each.aliases or ())}:
            return each
    raise UnknownName.of("schedule type", name, [each.label for each in SCHEDULERS])


def find_sampler(name: str) -> tuple[Sampler, Scheduler | None]:
    """The sampler of that name or alias, whatever its case; an old joint name ("DPM++ 2M Karras") also gives
    its schedule.

    Raises UnknownName: the peer would take DPM++ 2M in silence.
    """
    wanted = " ".join(name.lower().split())
    by_name = {alias.lower(): each for each in SAMPLERS for alias in (each.name, *each.aliases)}
    if wanted in by_name:
        return by_name[wanted], None
    for suffix, label in sorted(_SUFFIXES.items(), key=lambda item: -len(item[0])):
        if wanted.endswith(suffix) and wanted.removesuffix(suffix) in by_name:
            return by_name[wanted.removesuffix(suffix)], find_scheduler(label)
    raise UnknownName.of("sampler", name, [each.name for each in SAMPLERS])
