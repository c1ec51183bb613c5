"""What extensions add to the web UI: checked one by one, so that a bad answer costs its own control alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier import extension
from atelier.contract.models import ModelKind
from atelier.controls import card_pages, unit_sections

MANIFEST = 'name = "{name}"\nversion = "1"\ncontract = "1.0"\nparts = ["ui"]\n'


def add(root: Path, name: str, answer: str) -> None:
    (root / name).mkdir()
    (root / name / "extension.toml").write_text(MANIFEST.format(name=name))
    code = f"from atelier.extension import hookimpl\n\n\n@hookimpl\ndef controls(tab):\n    return {answer}\n"
    (root / name / "ui.py").write_text(code)


def test_the_pages_of_cards_are_our_own_and_those_of_the_installed_extensions_in_their_order() -> None:
    pages = card_pages("txt2img", extension.load("ui"))
    assert [each.title for each in pages] == ["Textual Inversion", "Hypernetworks", "Checkpoints", "Lora"]
    assert [each.kind for each in pages] == [
        ModelKind.EMBEDDING,
        ModelKind.HYPERNETWORK,
        ModelKind.CHECKPOINT,
        ModelKind.LORA,
    ]
    assert [each.tag for each in pages] == [
        "{name}",
        "<hypernet:{name}:{multiplier}>",
        None,
        "<lora:{name}:{multiplier}>",
    ]


def test_without_extensions_our_own_pages_stand_and_no_other(tmp_path: Path) -> None:
    pages = card_pages("txt2img", extension.load("ui", tmp_path))
    assert [each.title for each in pages] == ["Textual Inversion", "Checkpoints"]
    assert card_pages("another tab", extension.load("ui", tmp_path)) == []


def test_a_bad_answer_costs_that_control_alone_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = "{'type': 'cards', 'title': 'Good', 'kind': 'lora', 'tag': '<good:{name}>'}"
    add(tmp_path, "a_failing", "1 / 0")
    add(tmp_path, "b_mixed", f"[{{'type': 'cards', 'title': 'No kind'}}, {{'type': 'dial'}}, 7, {good}]")
    add(tmp_path, "c_twin", f"[{good}]")
    add(tmp_path, "d_silent", "None")
    pages = card_pages("txt2img", extension.load("ui", tmp_path))
    assert [each.title for each in pages] == ["Textual Inversion", "Checkpoints", "Good"]
    said = [record.getMessage() for record in caplog.records]
    assert any("a_failing was left out" in each and "division" in each for each in said)
    assert any("b_mixed" in each and "kind" in each for each in said)
    assert any("b_mixed" in each and "'dial'" in each for each in said)


def test_units_come_from_controlnet_and_a_bad_section_is_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [section] = unit_sections("txt2img", extension.load("ui"))
    assert (section.title, section.member, section.count, section.kind) == (
        "ControlNet",
        "controlnet",
        3,
        ModelKind.CONTROLNET,
    )
    canny = next(each for each in section.modules if each.name == "canny")
    assert [each.field for each in canny.sliders] == ["processor_res", "threshold_a", "threshold_b"]
    assert unit_sections("another tab", extension.load("ui")) == []
    add(tmp_path, "a_bad", "[{'type': 'units', 'title': 'Nothing'}]")
    assert unit_sections("txt2img", extension.load("ui", tmp_path)) == []
    assert any("a_bad" in record.getMessage() for record in caplog.records)
