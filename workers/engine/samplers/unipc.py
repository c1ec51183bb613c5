"""UniPC (Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
Models"): multistep, in the denoised latent, in sigmas: lambda = -log sigma, the signal's scale being 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from workers.engine.samplers.ddim import to_unit
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling

History = list[tuple[float, torch.Tensor]]
"""Steps taken, the newest first: lambda and the denoised latent seen there."""


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    rows, column = (torch.tensor(each, dtype=torch.float64) for each in (matrix, right))
    return [float(each) for each in torch.linalg.solve(rows, column)]


def _phis(span: float, count: int) -> list[float]:
    """span * phi_k(span) for k = 1..count, phi_k being the functions of exponential integrators: phi_0 = exp,
    phi_k = (phi_{k-1} - 1 / (k - 1)!) / span.
    """
    found, value = [], math.expm1(span)
    for power in range(1, count + 1):
        found.append(value)
        value = value / span - 1.0 / math.factorial(power)
    return found


def _shares(ratios: Sequence[float], span: float, variant: str) -> list[float]:
    """What each difference, divided by its ratio, adds: the solution of the order conditions (section 3.2
    there), times B(h) = h for "bh1" and e^h - 1 for "bh2".
    """
    count = len(ratios)
    scale = span if variant == "bh1" else math.expm1(span)
    if count == 1:
        return [0.5 * scale]
    matrix = [[ratio**power for ratio in ratios] for power in range(count)]
    phis = _phis(span, count + 1)[1:]
    right = [phi * math.factorial(power) / scale for power, phi in enumerate(phis, start=1)]
    return [share * scale for share in _solve(matrix, right)]


def _varying(ratios: Sequence[float], span: float, corrects: bool) -> list[float]:
    """The same with coefficients that vary with the step, by the inverted matrix of all orders. Of what the
    corrector sees anew only one element of it counts, as in the authors' solver and the peer, which costs the
    orders above the first.
    """
    count = len(ratios)
    matrix = [[ratio**power / math.factorial(power + 1) for power in range(count)] for ratio in ratios]
    inverse = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)).tolist()
    phis = _phis(span, count + 1)[1:]
    columns = count - 1 if corrects else count
    found = [sum(phis[row] * inverse[row][column] for row in range(columns)) for column in range(columns)]
    if corrects:
        found.append(phis[count - 1] * inverse[max(count - 2, 0)][count - 1])
    return found


def coefficients(ratios: Sequence[float], span: float, variant: str, corrects: bool) -> list[float]:
    """What to take of each difference quotient over a step of length -`span` in lambda, seen at `ratios` of
    it; for the corrector the last of them is 1, the step's end.
    """
    if not ratios:
        return []
    if variant == "vary_coeff":
        return _varying(ratios, span, corrects)
    return _shares(ratios, span, variant)


class _Step:
    """One step to the level `following` from what was seen before, of the given order."""

    def __init__(self, x: torch.Tensor, history: History, following: float, order: int, variant: str) -> None:
        at, self._newest = history[0]
        self._length = -math.log(following) - at
        self._variant = variant
        earlier = history[1:order]
        self._ratios = [(each - at) / self._length for each, _ in earlier]
        self._differences = [
            (seen - self._newest) / ratio for (_, seen), ratio in zip(earlier, self._ratios, strict=True)
        ]
        self._plain = math.exp(-self._length) * x - math.expm1(-self._length) * self._newest

    def _with(self, ratios: list[float], differences: list[torch.Tensor], corrects: bool) -> torch.Tensor:
        x = self._plain
        shares = coefficients(ratios, -self._length, self._variant, corrects)
        for share, difference in zip(shares, differences, strict=True):
            x = x - difference * share
        return x

    def predicted(self) -> torch.Tensor:
        """UniP."""
        return self._with(self._ratios, self._differences, False)

    def corrected(self, seen: torch.Tensor) -> torch.Tensor:
        """UniC, with what is seen at the predicted point."""
        return self._with([*self._ratios, 1.0], [*self._differences, seen - self._newest], True)


def unipc(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Predicts each level, looks there and corrects; the last level is only predicted. Orders rise by one
    from the first step on, and fall at the end with `uni_pc_lower_order_final`.
    """
    steps = len(sigmas) - 1
    highest = min(options.uni_pc_order, steps)
    r = yield Ask(x, sigmas[0])
    history: History = [(-math.log(sigmas[0]), r.denoised)]
    for number in range(1, steps + 1):
        order = min(number, highest)
        if options.uni_pc_lower_order_final and number >= highest:
            order = min(order, steps + 1 - number)
        step = _Step(x, history, sigmas[number], order, options.uni_pc_variant)
        x = step.predicted()
        if number < steps:
            r = yield Ask(x, sigmas[number])
            x = step.corrected(r.denoised)
            history = [(-math.log(sigmas[number]), r.denoised), *history][:highest]
    return to_unit(x, sigmas[-1])
