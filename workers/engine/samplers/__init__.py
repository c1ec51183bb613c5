"""Samplers and noise schedules by the names the wire uses."""

from __future__ import annotations

from dataclasses import replace

from atelier.contract.errors import UnknownName
from atelier.vocabulary import SAMPLERS as NAMED
from workers.engine.samplers import dpm_solver, heun, lcm, plms, restart, timesteps
from workers.engine.samplers.ddim import ddim, ddim_cfgpp
from workers.engine.samplers.dpm2 import dpm2, dpm2_ancestral
from workers.engine.samplers.dpmpp import dpmpp_2m, dpmpp_2s_ancestral
from workers.engine.samplers.dpmpp_sde import dpmpp_2m_sde, dpmpp_2m_sde_heun, dpmpp_3m_sde, dpmpp_sde
from workers.engine.samplers.euler import euler, euler_ancestral
from workers.engine.samplers.interface import Sampler
from workers.engine.samplers.lms import lms
from workers.engine.samplers.unipc import unipc

_SOLVERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler(dpmpp_2m),
    "DPM++ SDE": Sampler(dpmpp_sde, evaluations=heun.evaluations),
    "DPM++ 2M SDE": Sampler(dpmpp_2m_sde),
    "DPM++ 2M SDE Heun": Sampler(dpmpp_2m_sde_heun),
    "DPM++ 2S a": Sampler(dpmpp_2s_ancestral, evaluations=heun.evaluations),
    "DPM++ 3M SDE": Sampler(dpmpp_3m_sde),
    "Euler a": Sampler(euler_ancestral),
    "Euler": Sampler(euler),
    "LMS": Sampler(lms),
    "Heun": Sampler(heun.heun, evaluations=heun.evaluations),
    "DPM2": Sampler(dpm2, evaluations=heun.evaluations),
    "DPM2 a": Sampler(dpm2_ancestral, evaluations=heun.evaluations),
    "DPM fast": Sampler(dpm_solver.dpm_fast, dpm_solver.full_range, dpm_solver.tail),
    "DPM adaptive": Sampler(
        dpm_solver.dpm_adaptive,
        dpm_solver.full_range,
        dpm_solver.tail,
        adaptive=True,
        evaluations=dpm_solver.likely,
    ),
    "Restart": Sampler(restart.restart, evaluations=restart.evaluations),
    "DDIM": Sampler(ddim, timesteps.levels, timesteps.tail, unit=True),
    "DDIM CFG++": Sampler(ddim_cfgpp, timesteps.levels, timesteps.tail, unit=True, needs_uncond=True),
    "PLMS": Sampler(plms.plms, timesteps.levels, timesteps.tail, unit=True, evaluations=plms.evaluations),
    "UniPC": Sampler(unipc, timesteps.unipc_levels, timesteps.unipc_tail, unit=True),
    "LCM": Sampler(lcm.lcm, lcm.levels, lcm.tail),
}

SAMPLERS: dict[str, Sampler] = {
    each.name: replace(_SOLVERS[each.name], discards=each.discards) for each in NAMED
}
"""By the peer's name, in its order."""


def find(name: str) -> Sampler:
    """The sampler of that name; UnknownName where there is none."""
    if name not in SAMPLERS:
        raise UnknownName.of("sampler", name, SAMPLERS)
    return SAMPLERS[name]
