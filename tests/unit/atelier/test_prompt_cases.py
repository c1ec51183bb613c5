"""The prompt language against the peer's recorded answers, case by case."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from atelier.prompt import attention, composition, networks, schedule

_GOLDEN = Path(
    os.environ.get("ATELIER_GOLDEN") or Path(__file__).resolve().parents[4] / "shared" / "data" / "golden"
)
_FILE = _GOLDEN.parent / "prompt_cases.json"
_CASES: dict[str, Any] = json.loads(_FILE.read_text()) if _FILE.is_file() else {}
_BROKEN_IN_THE_PEER = "(a BREAK b) c"


def recorded(kind: str) -> pytest.MarkDecorator:
    """One test for each recorded case of a kind; one that is skipped where there are none."""
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case["in"]) for case in _CASES.get(kind, [])]
    )


@recorded("attention")
def test_attention_is_read_as_recorded(case: dict[str, Any]) -> None:
    expected = [("BREAK", -1.0) if text == "BREAK" else (text, weight) for text, weight in case["out"]]
    assert attention.parse(case["in"]) == expected
    assert [list(each) for each in attention.parse(case["in"])] == case["out"] or (
        case["in"] == _BROKEN_IN_THE_PEER
    )


@recorded("schedule")
def test_schedules_are_read_as_recorded(case: dict[str, Any]) -> None:
    assert [list(each) for each in schedule.parse(case["in"], case["steps"])] == case["out"]


@recorded("schedule_hires")
def test_schedules_of_the_second_pass_are_read_as_recorded(case: dict[str, Any]) -> None:
    found = schedule.parse(case["in"], case["base"], case["hires"])
    assert [list(each) for each in found] == case["out"]


@recorded("schedule_old")
def test_old_schedules_are_read_as_recorded(case: dict[str, Any]) -> None:
    assert [list(each) for each in schedule.parse(case["in"], case["steps"], old=True)] == case["out"]


@recorded("and")
def test_compositions_are_read_as_recorded(case: dict[str, Any]) -> None:
    found = composition.parse(case["in"])
    assert [text for text, _ in found] == case["texts"]
    assert [[index, weight] for index, (_, weight) in enumerate(found)] == case["index_weight"]


@recorded("extra_networks")
def test_network_tags_are_read_as_recorded(case: dict[str, Any]) -> None:
    text, found = networks.extract(case["in"])
    assert text == case["prompt_after"]
    assert [list(each) for each in found] == case["nets"]


@pytest.mark.parametrize("text", _CASES.get("ambiguous_in_the_peer", []))
def test_what_the_peer_reads_by_chance_is_edited(text: str) -> None:
    entries = schedule.parse(text, 20)
    assert len(entries) >= 2
    assert not any(":5]" in each or ":10]" in each or ":.5]" in each for _, each in entries)
