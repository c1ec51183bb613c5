"""`atelier settings`: levels, locks, history and undo from the command line, each change in the trail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from portal import cli
from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.container import Services
from portal.settings import load
from tests.quick_passwords import quick_passwords

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def services(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("ATELIER_DATA_DIR", str(data_dir))
    built = build(load(roles=("api",)), passwords=quick_passwords())
    upgrade(built.database)
    built.identity.create(audit.SYSTEM, "ann", "a long enough password", "designer")
    built.teams.create(audit.SYSTEM, "Posters", members=["ann"])
    return built


@pytest.fixture
def run(services: Services, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*words: str) -> tuple[int, str]:
        status = cli.main(["settings", *words])
        told = capsys.readouterr()
        return status, told.out + told.err

    return ran


def test_each_level_is_set_on_top_of_the_one_below(run: Run) -> None:
    assert run("set", "rho", "5") == (0, "rho\t5.0\tthe studio\n")
    assert run("set", "rho", "6.5", "--team", "Posters") == (0, "rho\t6.5\tthe team Posters\n")
    assert run("get", "rho", "--user", "Ann") == (0, "rho\t6.5\tthe team Posters\n")
    assert run("set", "rho", "7", "--user", "ann")[0] == 0
    assert run("get", "rho", "--user", "ann")[1].startswith("rho\t7.0\t")
    assert run("unset", "rho", "--user", "ann") == (0, "rho\t6.5\tthe team Posters\n")
    assert "rho\t5.0" in run("list")[1] and "CLIP_stop_at_last_layers" not in run("list")[1]
    assert "CLIP_stop_at_last_layers" in run("list", "--all")[1]


def test_a_lock_holds_for_those_above_until_it_is_set_free(run: Run) -> None:
    assert run("set", "rho", "5", "--lock") == (0, "rho\t5.0\tthe studio\tlocked\n")
    status, said = run("set", "rho", "6", "--team", "Posters")
    assert status == 1 and "locked by the studio" in said
    assert run("get", "rho", "--user", "ann") == (0, "rho\t5.0\tthe studio\tlocked by the studio\n")
    assert run("unlock", "rho") == (0, "rho\t5.0\tthe studio\n")
    assert run("set", "rho", "6", "--team", "Posters")[0] == 0
    assert run("lock", "rho", "tiling", "--team", "Posters")[0] == 0
    assert run("lock", "rho", "--user", "ann")[0] == 1


def test_what_was_before_is_listed_and_brought_back(run: Run) -> None:
    assert run("history") == (0, "Nothing was ever changed here.\n")
    run("set", "rho", "5")
    run("set", "rho", "6", "--lock")
    assert run("undo", "1")[0] == 0
    lines = run("history")[1].splitlines()
    assert [line.split("\t")[0] for line in lines] == ["3", "2", "1"]
    assert "rho=5.0" in lines[0] and "(version 1 again)" in lines[0] and "locked: rho" in lines[1]
    assert all("command line" in line for line in lines)
    assert run("get", "rho") == (0, "rho\t5.0\tthe studio\n")
    assert run("undo", "0")[0] == 0 and run("list") == (0, "")
    assert run("undo", "99")[0] == 1


def test_mistakes_are_told_in_words(run: Run) -> None:
    for words, said in (
        (("get", "rhoo"), "Did you mean 'rho'?"),
        (("set", "rhoo", "1"), "Did you mean 'rho'?"),
        (("set", "rho", "blue"), "rho"),
        (("list", "--team", "Nobodies"), "no team named 'Nobodies'"),
        (("list", "--user", "bob"), "no user named 'bob'"),
    ):
        status, told = run(*words)
        assert status == 1 and said in told and "Traceback" not in told, told


def test_every_change_stands_in_the_trail(run: Run, services: Services) -> None:
    run("set", "rho", "5", "--lock")
    run("set", "tiling", "true", "--user", "ann")
    run("undo", "0")
    found = [(each.actor_name, each.action) for each in services.trail.entries(limit=3)]
    assert found == [
        ("command line", "settings.undo"),
        ("command line", "settings.change"),
        ("command line", "settings.change"),
    ]
    assert services.trail.verify().broken is None
