"""Pictures in half precision: what it cannot hold is found again in float32, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atelier.contract.errors import InvalidRequest
from atelier.contract.models import ModelKind
from atelier.contract.parts import EngineSettings, HiresPass
from tests.engine_parts import part, reference
from tests.narrow import twin
from workers.engine import Engine, EngineResult, ModelFile
from workers.engine.loader.diffusers_layout import UNET, VAE

PATIENCE = 120.0
LOUD = 2e5
"""As a factor of the decoder's first layer it carries everything behind it beyond 65504, the largest number
of float16; norms take it away again.
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("precision")
    calm, loud, broken = twin("sd1", seed=1), twin("sd1", seed=1), twin("sd1", seed=1)
    loud.modules[VAE].decoder.conv_in.weight.mul_(LOUD)
    broken.modules[UNET].conv_out.weight.fill_(float("nan"))
    made = {"calm": calm, "loud": loud, "broken": broken}
    return {name: each.save(place / f"{name}.safetensors") for name, each in made.items()}


def made(files: dict[str, Path], dtype: str, name: str, **changes: object) -> EngineResult:
    engine = Engine(lambda ref: ModelFile(files[ref.name]), dtype=dtype)
    engine.start()
    try:
        return engine.submit(part(name, steps=2, **changes)).result(PATIENCE)
    finally:
        engine.close(30.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_makes_nearly_the_same_picture_and_says_nothing(
    files: dict[str, Path], dtype: str
) -> None:
    half, whole = (made(files, each, "calm") for each in (dtype, "float32"))
    assert not half.warnings and not whole.warnings
    apart = np.abs(half.pictures[0].pixels.astype(int) - whole.pictures[0].pixels.astype(int))
    assert apart.mean() < 3


def test_a_vae_beyond_half_precision_runs_again_in_float32_and_the_result_says_so(
    files: dict[str, Path],
) -> None:
    half, whole = (
        made(files, each, "loud", seeds=(1, 2), subseeds=(0, 0)) for each in ("float16", "float32")
    )
    assert len(half.warnings) == 1
    assert "beyond what float16 holds" in half.warnings[0]
    assert not whole.warnings
    for ours, theirs in zip(half.pictures, whole.pictures, strict=True):
        assert theirs.pixels.std() > 2
        assert np.abs(ours.pixels.astype(int) - theirs.pixels.astype(int)).mean() < 3


def test_the_second_run_is_in_bfloat16_or_left_out_where_the_options_say_so(files: dict[str, Path]) -> None:
    brief = EngineSettings(randn_source="CPU", auto_vae_precision_bfloat16=True)
    half, whole = made(files, "float16", "loud", settings=brief), made(files, "float32", "loud")
    assert len(half.warnings) == 1
    assert "it ran again in bfloat16" in half.warnings[0]
    assert np.abs(half.pictures[0].pixels.astype(int) - whole.pictures[0].pixels.astype(int)).mean() < 3
    never = EngineSettings(randn_source="CPU", auto_vae_precision=False)
    with pytest.raises(InvalidRequest, match=r"the option auto_vae_precision, .* is off"):
        made(files, "float16", "loud", settings=never)
    with pytest.raises(InvalidRequest, match="beyond all bounds"):
        made(files, "float16", "broken", settings=never)
    assert not made(files, "float32", "loud", settings=never).warnings


def test_bfloat16_holds_what_float16_does_not(files: dict[str, Path]) -> None:
    assert not made(files, "bfloat16", "loud").warnings


def test_a_second_pass_over_pixels_survives_it_too(files: dict[str, Path]) -> None:
    second = HiresPass(
        size=(96, 96),
        upscaled=(96, 96),
        upscaler="Nearest",
        steps=2,
        denoising_strength=0.5,
        sampler="Euler",
        scheduler="Automatic",
        prompt="a red circle",
        negative_prompt="",
    )
    result = made(files, "float16", "loud", hires=second)
    assert len(result.warnings) == 1
    assert result.pictures[0].pixels.std() > 2


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_float32_cannot_hold_either_is_an_error(files: dict[str, Path], dtype: str) -> None:
    with pytest.raises(InvalidRequest, match="beyond all bounds"):
        made(files, dtype, "broken")


def test_an_autoencoder_for_half_precision_beside_it_avoids_the_second_run(files: dict[str, Path]) -> None:
    calm = reference("calm", ModelKind.VAE)
    assert not made(files, "float16", "loud", vae=calm).warnings
