"""What each kind of network adds to one module's weight.

Sources: Hu et al. 2021 (LoRA), Liu et al. 2024 (DoRA), Yeh et al. 2023 (LyCORIS: LoHa, LoKr, CP form), Liu et
al. 2022 (IA3), Chavan et al. 2023 (GLoRA), Qiu et al. 2023 (OFT), Liu et al. 2023 (BOFT), and the tensors
that kohya's and the LyCORIS trainers write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workers.engine.networks import orthogonal

Parts = Mapping[str, torch.Tensor]
"""The tensors a file holds for one module, by their part's name (`lora_up`, `hada_w1_a`, ...)."""


class Misfit(ValueError):
    """The tensors of a module do not fit the weight they are for."""


def _shaped(delta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`delta` in the shape of `weight`, whose outputs it must have; Misfit otherwise."""
    if delta.numel() != weight.numel() or delta.shape[0] != weight.shape[0]:
        raise Misfit(f"{tuple(delta.shape)} does not fit {tuple(weight.shape)}")
    return delta.reshape(weight.shape)


def _composed(core: torch.Tensor, out: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """A Tucker (CP) form: core [p, q, ...], out [p, outputs], into [q, inputs] -> [outputs, inputs, ...]."""
    return torch.einsum("pq...,po,qi->oi...", core, out, into)


def _lora(parts: Parts, weight: torch.Tensor, dyn: int | None) -> torch.Tensor:
    up, down, mid = parts["lora_up"].flatten(1), parts["lora_down"], parts.get("lora_mid")
    if mid is not None:
        return _shaped(_composed(mid, up.T, down.flatten(1)), weight)
    return _shaped(up[:, :dyn] @ down.flatten(1)[:dyn], weight)


def _loha(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    factors = []
    for number in ("1", "2"):
        a, b = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        core = parts.get(f"hada_t{number}")
        factors.append(a @ b if core is None else _composed(core, a, b))
    return _shaped(factors[0] * factors[1], weight)


def _kronecker_factor(parts: Parts, number: str) -> torch.Tensor:
    if (whole := parts.get(f"lokr_w{number}")) is not None:
        return whole
    a, b, core = parts[f"lokr_w{number}_a"], parts[f"lokr_w{number}_b"], parts.get(f"lokr_t{number}")
    return a @ b if core is None else _composed(core, a, b)


def _lokr(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    left, right = _kronecker_factor(parts, "1"), _kronecker_factor(parts, "2")
    left = left.reshape(*left.shape, *[1] * (right.ndim - left.ndim))
    return _shaped(torch.kron(left, right.contiguous()), weight)


def _ia3(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    """A factor for each output, or with `on_input` for each input."""
    factor, axis = parts["weight"].flatten(), int("on_input" in parts)
    if factor.numel() != weight.shape[axis]:
        raise Misfit(f"{factor.numel()} factors do not fit {tuple(weight.shape)}")
    sides = [1] * weight.ndim
    sides[axis] = -1
    return weight * factor.reshape(sides)


def _glora(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    """W A + B with A and B of low rank. The factors' order changed between versions of the trainer: theirs
    is told from the shapes.
    """
    a1, a2, b1, b2 = (parts[each].flatten(1) for each in ("a1", "a2", "b1", "b2"))
    flat = weight.flatten(1)
    if b2.shape[0] == weight.shape[0] and b2.shape[1] == b1.shape[0]:
        return _shaped(b2 @ b1 + flat @ a2 @ a1, weight)
    return _shaped(b1 @ b2 + flat @ a1 @ a2, weight)


def _full(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    return _shaped(parts["diff"], weight)


def _norm(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    return _shaped(parts["w_norm"], weight)


def _nothing(_parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    return torch.zeros_like(weight)


def _oft(parts: Parts, weight: torch.Tensor, _: int | None) -> torch.Tensor:
    try:
        return _shaped(orthogonal.turned(parts, weight) - weight, weight)
    except orthogonal.DoesNotDivide as error:
        raise Misfit(str(error)) from error


Compute = Callable[[Parts, torch.Tensor, int | None], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of network: the parts that tell it, what it adds, the parts whose least first side is its rank,
    and whether what it adds does not depend on the weight.
    """

    name: str
    needs: tuple[str, ...]
    compute: Compute
    rank_of: tuple[str, ...] = ()
    additive: bool = True


KINDS = (
    Kind("LoRA", ("lora_up", "lora_down"), _lora, ("lora_down",)),
    Kind("LoHa", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _loha, ("hada_w1_b",)),
    Kind("IA3", ("weight",), _ia3, additive=False),
    Kind("LoKr", ("lokr_w1", "lokr_w2"), _lokr),
    Kind("LoKr", ("lokr_w1", "lokr_w2_a", "lokr_w2_b"), _lokr, ("lokr_w2_b",)),
    Kind("LoKr", ("lokr_w1_a", "lokr_w1_b", "lokr_w2"), _lokr, ("lokr_w1_b",)),
    Kind("LoKr", ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"), _lokr, ("lokr_w2_b", "lokr_w1_b")),
    Kind("full difference", ("diff",), _full),
    Kind("norm difference", ("w_norm",), _norm),
    Kind("full difference", ("diff_b",), _nothing),
    Kind("norm difference", ("b_norm",), _nothing),
    Kind("GLoRA", ("a1", "a2", "b1", "b2"), _glora, ("a1", "a2"), additive=False),
    Kind("OFT", ("oft_blocks",), _oft, additive=False),
    Kind("OFT", ("oft_diag",), _oft, additive=False),
)
_BIASES = ("diff_b", "b_norm")


@dataclass(frozen=True, eq=False)
class Piece:
    """What a network holds for one module. `scale` is its own or alpha / rank; `dora` [outputs, 1, ...] or
    [1, inputs, ...] the magnitudes of a weight-decomposed kind.
    """

    kind: Kind
    parts: Parts
    scale: float = 1.0
    dora: torch.Tensor | None = None

    @property
    def additive(self) -> bool:
        """Whether what it adds is the same for any weight."""
        return self.kind.additive and self.dora is None

    @property
    def bias(self) -> torch.Tensor | None:
        """What it adds to the module's bias, if anything."""
        return next((self.parts[each] for each in _BIASES if each in self.parts), None)

    def delta(self, weight: torch.Tensor, dyn: int | None = None) -> torch.Tensor:
        """What it adds to `weight` (float32, [outputs, inputs, ...]) at strength 1, in the weight's shape.

        `dyn` cuts a LoRA to its first ranks. A first convolution that sees a mask besides the latent takes
        what was trained without. Raises Misfit where the shapes do not fit.
        """
        parts = {name: part.to(weight.device, torch.float32) for name, part in self.parts.items()}
        try:
            found = self._delta(parts, weight, dyn)
        except (Misfit, RuntimeError):
            # 4 channels of latent, then those of an inpainting or pix2pix model
            if weight.ndim != 4 or weight.shape[1] not in (8, 9):
                raise
            found = F.pad(self._delta(parts, weight[:, :4], dyn), (0, 0, 0, 0, 0, weight.shape[1] - 4))
        return found

    def _delta(self, parts: Parts, weight: torch.Tensor, dyn: int | None) -> torch.Tensor:
        delta = self.kind.compute(parts, weight, dyn) * self.scale
        if self.dora is None:
            return delta
        return _decomposed(weight + delta, self.dora.to(weight.device, torch.float32)) - weight


def _decomposed(weight: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """DoRA: `weight` with the norm of each of its columns (inputs) replaced by the magnitudes; of each row
    (output) where they are [outputs, 1, ...].
    """
    count = magnitudes.numel()
    per_output = magnitudes.shape[0] == weight.shape[0] and (magnitudes.ndim == 1 or magnitudes.shape[0] != 1)
    if count != weight.shape[0 if per_output else 1]:
        raise Misfit(f"{count} magnitudes do not fit {tuple(weight.shape)}")
    kept = 0 if per_output else 1
    others = [axis for axis in range(weight.ndim) if axis != kept]
    sides = [1] * weight.ndim
    sides[kept] = -1
    norms = weight.square().sum(dim=others, keepdim=True).sqrt()
    return weight * (magnitudes.reshape(sides) / norms)


def piece(parts: Mapping[str, torch.Tensor]) -> Piece | None:
    """The piece that a module's tensors make, None where they are of no known kind."""
    kind = next((each for each in KINDS if all(need in parts for need in each.needs)), None)
    if kind is None:
        return None
    own = {name: part for name, part in parts.items() if name not in ("alpha", "scale", "dora_scale")}
    if "on_input" in own and not bool(own["on_input"]):
        del own["on_input"]
    if kind.needs == ("oft_blocks",) and "alpha" in parts:
        own["constraint"] = parts["alpha"]
    return Piece(kind, own, _scale(kind, parts), parts.get("dora_scale"))


def _scale(kind: Kind, parts: Mapping[str, torch.Tensor]) -> float:
    if "scale" in parts:
        return float(parts["scale"])
    if "alpha" not in parts or not kind.rank_of:
        return 1.0
    return float(parts["alpha"]) / min(parts[each].shape[0] for each in kind.rank_of)
