"""One list of families: what files tell, what people may say and what the engine loads are the same names."""

from __future__ import annotations

import itertools

import pytest

from atelier import modelfile
from atelier.contract import families
from atelier.contract.errors import ModelUnusable
from atelier.contract.limits import of_family
from atelier.modelfile import Header, TensorEntry
from workers.engine.loader.families import FAMILIES, check_stated

PREFIXES = {
    "sd1": "cond_stage_model.transformer.x",
    "sd2": "cond_stage_model.model.x",
    "sdxl": "conditioner.embedders.1.model.x",
    "sdxl-refiner": "conditioner.embedders.0.model.x",
}
CASES = list(itertools.product(families.BASES, (4, 9, 8, 5), (False, True), (False, True)))


def told(base: str, channels: int, velocity: bool, unclip: bool) -> str | None:
    """What a file with these tensors tells."""
    names = {
        "model.diffusion_model.input_blocks.0.0.weight": (8, channels, 3, 3),
        "first_stage_model.decoder.conv_in.weight": (1,),
        PREFIXES[base]: (1,),
    }
    if unclip:
        names["model.diffusion_model.label_emb.0.0.weight"] = (1,)
    tensors = {name: TensorEntry("F32", shape, 0, 0) for name, shape in names.items()}
    metadata = {"modelspec.prediction_type": "v"} if velocity else {}
    return modelfile.family(Header(tensors=tensors, metadata=metadata, data_offset=8))


def test_whatever_a_file_tells_is_a_name_of_the_list_and_the_engine_loads_every_base() -> None:
    found = {told(*case) for case in CASES if not case[3] or case[:2] == ("sd2", 4)}
    assert found == set(families.NAMES)
    assert set(FAMILIES) == set(families.BASES)
    assert {of_family(name).native for name in families.NAMES} == {512, 768, 1024}


@pytest.mark.parametrize("found", families.NAMES)
def test_the_portal_offers_what_the_engine_takes_and_nothing_else(found: str) -> None:
    base = next(each for each in reversed(families.BASES) if found.startswith(each))
    channels = next((many for many, name in families.VARIANTS.items() if name in found), 4)
    offered = families.choices(found)
    assert found in offered and len(offered) == 2
    if families.UNCLIP in found:
        return  # nothing loads these
    for stated in families.NAMES:
        try:
            check_stated("x", stated, base, channels)
            taken = True
        except ModelUnusable as error:
            assert stated in error.message
            taken = False
        assert taken == (stated in offered), (found, stated)
    assert families.choices(None) == families.NAMES
