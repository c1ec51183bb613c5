"""Options as a user's own settings: what can be set, and that a stored name that fails says where it is."""

from __future__ import annotations

import pytest

from atelier import options, ownoptions
from atelier.contract.errors import ModelUnusable, UnknownName
from atelier.contract.models import ModelKind
from atelier.resolve import resolve_txt2img
from tests.unit.atelier.test_infotext import CATALOGUE, model

DEFAULTS = {name: value for name, value in ownoptions.known().items() if value is not None}


@pytest.mark.parametrize("name", sorted(ownoptions.SERVED & DEFAULTS.keys()))
def test_every_option_that_can_be_set_takes_its_own_default_and_no_value_of_another_kind(name: str) -> None:
    default = DEFAULTS[name]
    assert ownoptions.wanted({name: default}, {}, CATALOGUE).changes == {name: None}
    assert ownoptions.wanted({name: None}, {name: 1}, CATALOGUE).changes == {name: None}
    with pytest.raises(Exception, match=name):
        ownoptions.wanted({name: {"not": "a value"}}, {}, CATALOGUE)


def test_what_pictures_depend_on_can_be_set_and_nothing_of_the_machine() -> None:
    assert {"auto_vae_precision", "auto_vae_precision_bfloat16", "hires_fix_use_firstpass_conds"} <= (
        ownoptions.SERVED
    )
    assert ownoptions.known().keys() >= ownoptions.SERVED
    assert not {name for name in ownoptions.SERVED if name.startswith(("outdir", "api_", "temp_"))}
    assert set(options.ENGINE_OPTIONS) <= ownoptions.SERVED


@pytest.mark.parametrize(
    ("option", "value"), [("sd_model_checkpoint", "gone.safetensors [1]"), ("sd_vae", "gone.pt")]
)
def test_a_stored_name_that_is_gone_says_that_it_is_ones_own_setting(option: str, value: str) -> None:
    with pytest.raises(UnknownName, match=f"Your own setting '{option}' names it"):
        resolve_txt2img({"prompt": "x"}, CATALOGUE, settings={option: value})
    with pytest.raises(UnknownName) as named:
        resolve_txt2img({"override_settings": {option: value}}, CATALOGUE)
    assert "own setting" not in named.value.message
    vae = model(ModelKind.VAE, "gone.pt", "0123456789")
    checkpoint = model(ModelKind.CHECKPOINT, "gone.safetensors", "0123456789")
    missing = CATALOGUE.model_copy(update={"missing": (vae, checkpoint)})
    with pytest.raises(ModelUnusable, match="moved or deleted") as gone:
        resolve_txt2img({"prompt": "x"}, missing, settings={option: value.partition(" ")[0]})
    assert "own setting" in gone.value.message
