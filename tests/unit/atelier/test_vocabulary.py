"""Names of samplers, schedulers and options, against the peer's lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atelier import options, vocabulary
from atelier.contract.errors import UnknownName
from atelier.contract.parts import EngineSettings


def test_samplers_are_the_peers_in_its_order_with_its_options(golden: Path) -> None:
    recorded = json.loads((golden / "lists" / "samplers.json").read_text())
    ours = [
        {"name": each.name, "aliases": list(each.aliases), "options": each.options}
        for each in vocabulary.SAMPLERS
    ]
    assert ours == recorded


def test_schedulers_are_the_peers_in_its_order(golden: Path) -> None:
    recorded = json.loads((golden / "lists" / "schedulers.json").read_text())
    ours = [
        {
            "name": each.name,
            "label": each.label,
            "aliases": list(each.aliases) if each.aliases else None,
            "default_rho": each.default_rho,
            "need_inner_model": each.need_inner_model,
        }
        for each in vocabulary.SCHEDULERS
    ]
    assert ours == recorded


def test_options_are_the_peers_by_name(golden: Path) -> None:
    recorded = json.loads((golden / "lists" / "options_fresh_defaults.json").read_text())
    assert set(options.defaults()) == set(recorded)


def test_the_engines_defaults_are_the_peers() -> None:
    settings = EngineSettings().model_dump()
    for option, field in options.ENGINE_OPTIONS.items():
        assert settings[field] == options.defaults()[option], option


@pytest.mark.parametrize(
    ("name", "sampler", "scheduler"),
    [
        ("Euler", "Euler", None),
        ("euler A", "Euler a", None),
        ("k_euler_a", "Euler a", None),
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
        ("DPM++ 2M SGMUniform", "DPM++ 2M", "SGM Uniform"),
    ],
)
def test_names_aliases_and_old_joint_names_are_found(name: str, sampler: str, scheduler: str | None) -> None:
    found, joint = vocabulary.find_sampler(name)
    assert (found.name, joint.label if joint else None) == (sampler, scheduler)


def test_what_follows_from_a_samplers_options() -> None:
    heun, dpm2, ddim = (vocabulary.find_sampler(name)[0] for name in ("Heun", "DPM2", "DDIM"))
    assert (heun.second_order, heun.discards, heun.scheduler) == (True, False, "Automatic")
    assert (dpm2.second_order, dpm2.discards, dpm2.scheduler) == (True, True, "Karras")
    assert (ddim.second_order, ddim.ignores_schedulers, dpm2.ignores_schedulers) == (False, True, False)


def test_a_scheduler_is_found_by_name_label_and_alias() -> None:
    assert {
        vocabulary.find_scheduler(name).name for name in ("sgm_uniform", "SGM Uniform", "SGMUniform")
    } == {"sgm_uniform"}


def test_what_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'Euler a'"):
        vocabulary.find_sampler("Euler aa")
