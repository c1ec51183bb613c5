"""Every kind of network against its definition, computed here on its own: by loops, Kronecker products of
numpy, explicit rotation and permutation matrices.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.engine.networks.kinds import Misfit, Piece, piece

OUT, IN, RANK = 8, 6, 3
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LINEAR = drawn(100, OUT, IN)
CONV = drawn(101, OUT, IN, 3, 3)


def made(**parts: torch.Tensor) -> Piece:
    found = piece(parts)
    assert found is not None
    return found


def check(found: Piece, weight: torch.Tensor, expected: np.ndarray, dyn: int | None = None) -> None:
    delta = found.delta(weight, dyn).numpy()
    assert delta.shape == tuple(weight.shape)
    np.testing.assert_allclose(delta, expected, **CLOSE)


def test_lora_is_the_product_of_its_factors_times_alpha_over_rank() -> None:
    up, down = drawn(1, OUT, RANK), drawn(2, RANK, IN)
    expected = np.zeros((OUT, IN))
    for o in range(OUT):
        for i in range(IN):
            expected[o, i] = sum(float(up[o, r] * down[r, i]) for r in range(RANK)) * 2.0 / RANK
    check(made(lora_up=up, lora_down=down, alpha=torch.tensor(2.0)), LINEAR, expected)
    check(made(lora_up=up, lora_down=down), LINEAR, expected * RANK / 2.0)


def test_dyn_keeps_the_first_ranks_and_the_scale_of_all() -> None:
    up, down = drawn(1, OUT, RANK), drawn(2, RANK, IN)
    expected = (up.numpy()[:, :2] @ down.numpy()[:2]) * 2.0 / RANK
    check(made(lora_up=up, lora_down=down, alpha=torch.tensor(2.0)), LINEAR, expected, dyn=2)


def test_a_scale_of_its_own_wins_over_alpha() -> None:
    up, down = drawn(1, OUT, RANK), drawn(2, RANK, IN)
    found = made(lora_up=up, lora_down=down, alpha=torch.tensor(2.0), scale=torch.tensor(0.25))
    check(found, LINEAR, up.numpy() @ down.numpy() * 0.25)


def test_locon_convolves_down_then_up() -> None:
    up, down = drawn(3, OUT, RANK, 1, 1), drawn(4, RANK, IN, 3, 3)
    picture = drawn(5, 1, IN, 7, 7)
    delta = made(lora_up=up, lora_down=down, alpha=torch.tensor(float(RANK))).delta(CONV)
    two_steps = torch.conv2d(torch.conv2d(picture, down, padding=1), up)
    torch.testing.assert_close(torch.conv2d(picture, delta, padding=1), two_steps, **CLOSE)


def test_lora_in_cp_form_convolves_down_through_its_middle_and_up() -> None:
    up, mid, down = drawn(3, OUT, RANK, 1, 1), drawn(6, RANK, RANK, 3, 3), drawn(4, RANK, IN, 1, 1)
    picture = drawn(5, 1, IN, 7, 7)
    delta = made(lora_up=up, lora_mid=mid, lora_down=down).delta(CONV)
    three_steps = torch.conv2d(torch.conv2d(torch.conv2d(picture, down), mid, padding=1), up)
    torch.testing.assert_close(torch.conv2d(picture, delta, padding=1), three_steps, **CLOSE)


def test_loha_is_the_elementwise_product_of_two_low_rank_matrices() -> None:
    a1, b1, a2, b2 = drawn(1, OUT, RANK), drawn(2, RANK, IN), drawn(3, OUT, RANK), drawn(4, RANK, IN)
    found = made(hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2, alpha=torch.tensor(1.0))
    check(found, LINEAR, np.multiply(a1.numpy() @ b1.numpy(), a2.numpy() @ b2.numpy()) / RANK)


def tucker(core: torch.Tensor, out: torch.Tensor, into: torch.Tensor) -> np.ndarray:
    """sum over p, q of core[p, q, k, l] out[p, o] into[q, i], by loops."""
    found = np.zeros((out.shape[1], into.shape[1], *core.shape[2:]))
    for p in range(core.shape[0]):
        for q in range(core.shape[1]):
            found += np.multiply.outer(np.outer(out[p].numpy(), into[q].numpy()), core[p, q].numpy())
    return found


def test_loha_in_cp_form_composes_each_factor_first() -> None:
    cores = [drawn(seed, RANK, RANK, 3, 3) for seed in (1, 2)]
    outs = [drawn(seed, RANK, OUT) for seed in (3, 4)]
    intos = [drawn(seed, RANK, IN) for seed in (5, 6)]
    found = made(
        hada_t1=cores[0], hada_w1_a=outs[0], hada_w1_b=intos[0],
        hada_t2=cores[1], hada_w2_a=outs[1], hada_w2_b=intos[1],
    )  # fmt: skip
    first, second = (tucker(cores[n], outs[n], intos[n]) for n in (0, 1))
    check(found, CONV, first * second)


@pytest.mark.parametrize("split", ["neither", "first", "second", "both"])
def test_lokr_is_a_kronecker_product_of_whole_or_low_rank_factors(split: str) -> None:
    a1, b1, a2, b2 = drawn(1, 2, 1), drawn(2, 1, 3), drawn(3, 4, 2), drawn(4, 2, 2)
    parts = {"alpha": torch.tensor(3.0)}
    parts |= {"lokr_w1_a": a1, "lokr_w1_b": b1} if split in ("first", "both") else {"lokr_w1": a1 @ b1}
    parts |= {"lokr_w2_a": a2, "lokr_w2_b": b2} if split in ("second", "both") else {"lokr_w2": a2 @ b2}
    scale = {"neither": 1.0, "first": 3.0, "second": 1.5, "both": 3.0}[split]
    expected = np.kron(a1.numpy() @ b1.numpy(), a2.numpy() @ b2.numpy()) * scale
    check(made(**parts), LINEAR, expected)


def test_lokr_of_a_convolution_in_cp_form() -> None:
    w1, core, out, into = drawn(1, 2, 3), drawn(2, 2, 2, 3, 3), drawn(3, 2, 4), drawn(4, 2, 2)
    found = made(lokr_w1=w1, lokr_t2=core, lokr_w2_a=out, lokr_w2_b=into)
    right = tucker(core, out, into)
    expected = np.stack([[np.kron(w1.numpy(), right[:, :, k, m]) for m in range(3)] for k in range(3)])
    check(found, CONV, expected.transpose(2, 3, 0, 1))


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
def test_ia3_scales_outputs_or_with_on_input_inputs(weight: torch.Tensor) -> None:
    per_output, per_input = drawn(1, OUT), drawn(2, IN)
    numbers = weight.numpy()
    outputs = np.stack([numbers[o] * float(per_output[o]) for o in range(OUT)])
    inputs = np.stack([numbers[:, i] * float(per_input[i]) for i in range(IN)], axis=1)
    check(made(weight=per_output), weight, outputs)
    check(made(weight=per_output, on_input=torch.tensor(False)), weight, outputs)
    check(made(weight=per_input, on_input=torch.tensor(True)), weight, inputs)


def test_glora_adds_a_product_with_the_weight_in_either_order_of_its_factors() -> None:
    left, right = drawn(1, IN, RANK), drawn(2, RANK, IN)
    up, down = drawn(3, OUT, RANK), drawn(4, RANK, IN)
    w = LINEAR.numpy()
    expected = (w @ (left.numpy() @ right.numpy()) + up.numpy() @ down.numpy()) * 1.5 / RANK
    alpha = torch.tensor(1.5)
    check(made(a2=left, a1=right, b2=up, b1=down, alpha=alpha), LINEAR, expected)
    check(made(a1=left, a2=right, b1=up, b2=down, alpha=alpha), LINEAR, expected)


def test_full_and_norm_differences_are_added_as_they_are_with_their_biases() -> None:
    diff, bias = drawn(1, OUT, IN, 3, 3), drawn(2, OUT)
    full = made(diff=diff, diff_b=bias)
    check(full, CONV, diff.numpy())
    assert full.bias is bias
    norm = made(w_norm=drawn(3, OUT), b_norm=bias)
    check(norm, drawn(4, OUT), drawn(3, OUT).numpy())
    assert norm.bias is bias
    alone = made(diff_b=bias)
    check(alone, CONV, np.zeros(CONV.shape))


def rotations(blocks: np.ndarray) -> np.ndarray:
    """The Cayley transform of each block's skew-symmetric part, doubled."""
    skew = blocks - blocks.swapaxes(-1, -2)
    eye = np.eye(blocks.shape[-1])
    return np.stack([(eye + each) @ np.linalg.inv(eye - each) for each in skew])


def diagonal(blocks: np.ndarray) -> np.ndarray:
    """One matrix with the blocks on its diagonal."""
    count, side, _ = blocks.shape
    whole = np.zeros((count * side, count * side))
    for number, block in enumerate(blocks):
        place = slice(number * side, number * side + side)
        whole[place, place] = block
    return whole


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
def test_oft_turns_blocks_of_outputs(weight: torch.Tensor) -> None:
    blocks, rescale = drawn(1, 2, 4, 4) * 0.3, drawn(2, OUT, 1)
    flat = weight.numpy().reshape(OUT, -1)
    turned = diagonal(rotations(blocks.numpy())).T @ flat
    check(made(oft_blocks=blocks), weight, (turned - flat).reshape(weight.shape))
    scaled = turned * rescale.numpy()
    check(made(oft_blocks=blocks, rescale=rescale), weight, (scaled - flat).reshape(weight.shape))


def test_oft_has_the_norm_of_its_parameters_bounded_by_alpha_times_outputs() -> None:
    blocks = drawn(1, 2, 4, 4)
    skew = (blocks - blocks.transpose(1, 2)).numpy()
    bound = 0.01 * OUT
    assert np.linalg.norm(skew) > bound
    eye, small = np.eye(4), skew * bound / np.linalg.norm(skew)
    turned = diagonal(np.stack([(eye + each) @ np.linalg.inv(eye - each) for each in small])).T
    found = made(oft_blocks=blocks, alpha=torch.tensor(0.01))
    check(found, LINEAR, (turned @ LINEAR.numpy() - LINEAR.numpy()))
    free = made(oft_blocks=blocks, alpha=torch.tensor(0.0))
    check(free, LINEAR, diagonal(rotations(blocks.numpy())).T @ LINEAR.numpy() - LINEAR.numpy())


def test_older_oft_files_hold_the_rotations_themselves() -> None:
    given = rotations(drawn(1, 2, 4, 4).numpy() * 0.2)
    found = made(oft_diag=torch.tensor(given, dtype=torch.float32))
    check(found, LINEAR, diagonal(given).T @ LINEAR.numpy() - LINEAR.numpy())


def test_boft_turns_in_stages_between_permutations() -> None:
    stages = drawn(1, 3, 4, 2, 2) * 0.4
    whole = np.eye(OUT)
    for number in range(3):
        apart = 2**number
        order = [
            group * 2 * apart + side * apart + place
            for group in range(OUT // (2 * apart))
            for place in range(apart)
            for side in range(2)
        ]
        gather = np.eye(OUT)[order]
        whole = gather.T @ diagonal(rotations(stages[number].numpy())) @ gather @ whole
    check(made(oft_blocks=stages), LINEAR, whole @ LINEAR.numpy() - LINEAR.numpy())


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
def test_dora_gives_each_input_its_magnitude_whatever_the_kind(weight: torch.Tensor) -> None:
    flat_in = weight[0].numel()
    up, down = drawn(1, OUT, RANK), drawn(2, RANK, flat_in).reshape(RANK, *weight.shape[1:])
    magnitudes = drawn(3, 1, IN).abs().reshape(1, IN, *[1] * (weight.ndim - 2))
    whole = weight.numpy() + (up.numpy() @ down.flatten(1).numpy()).reshape(weight.shape) * 2.0 / RANK
    expected = np.zeros(weight.shape)
    for i in range(IN):
        column = whole[:, i]
        expected[:, i] = column * float(magnitudes.flatten()[i]) / np.sqrt((column**2).sum())
    found = made(lora_up=up, lora_down=down, alpha=torch.tensor(2.0), dora_scale=magnitudes)
    check(found, weight, expected - weight.numpy())
    assert not found.additive


def test_dora_of_a_loha_and_with_magnitudes_of_outputs() -> None:
    a1, b1, a2, b2 = drawn(1, OUT, RANK), drawn(2, RANK, IN), drawn(3, OUT, RANK), drawn(4, RANK, IN)
    magnitudes = drawn(5, OUT, 1).abs()
    whole = LINEAR.numpy() + (a1.numpy() @ b1.numpy()) * (a2.numpy() @ b2.numpy())
    expected = np.stack(
        [row * float(m) / np.linalg.norm(row) for row, m in zip(whole, magnitudes.flatten(), strict=True)]
    )
    found = made(hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2, dora_scale=magnitudes)
    check(found, LINEAR, expected - LINEAR.numpy())


def test_a_lora_of_four_channels_leaves_the_further_channels_of_an_inpainting_model_alone() -> None:
    up, down = drawn(1, OUT, RANK, 1, 1), drawn(2, RANK, 4, 3, 3)
    delta = made(lora_up=up, lora_down=down).delta(drawn(3, OUT, 9, 3, 3))
    assert delta.shape == (OUT, 9, 3, 3)
    assert not delta[:, 4:].any()
    torch.testing.assert_close(delta[:, :4], made(lora_up=up, lora_down=down).delta(drawn(3, OUT, 4, 3, 3)))


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up": drawn(1, IN, RANK), "lora_down": drawn(2, RANK, OUT)},
        {"weight": drawn(1, OUT + 1)},
        {"diff": drawn(1, OUT, IN + 1)},
        {"oft_blocks": drawn(1, 3, 3, 3)},
        {"lora_up": drawn(1, OUT, 2), "lora_down": drawn(2, 2, IN), "dora_scale": drawn(3, 1, IN + 1)},
    ],
    ids=["transposed", "ia3", "full", "oft", "dora"],
)
def test_what_does_not_fit_its_weight_is_refused(parts: dict[str, torch.Tensor]) -> None:
    with pytest.raises(Misfit):
        made(**parts).delta(LINEAR)


def test_tensors_of_no_known_kind_make_no_piece() -> None:
    assert piece({"lora_up": drawn(1, OUT, RANK), "alpha": torch.tensor(1.0)}) is None
