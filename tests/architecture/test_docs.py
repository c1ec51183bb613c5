"""The documentation is complete: whatever a reader may need to look up stands there, and nothing that is gone
does.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from functools import cache

from pydantic_settings import BaseSettings

from atelier.contract.errors import ERRORS
from atelier.extension import SchemaHooks, WorkerHooks
from portal.cli import parser
from portal.services.permissions import DESIGNER, PERMISSIONS, ROLES
from portal.settings import Settings as PortalSettings
from tests.architecture.source import ROOT, functions_of
from webui.settings import Settings as WebuiSettings
from workers.runtime.settings import WorkerSettings

ROWS = {"S0": 16, "S1": 10, "S2": 15, "S3": 36, "S4": 11}
"""How many rows each of the five source documents has."""


@cache
def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def _table(name: str) -> dict[str, list[str]]:
    """The rows of all tables of a page: first cell without its backquotes -> the other cells."""
    lines = (line for line in _page(name).splitlines() if line.startswith("| "))
    cells = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {
        row[0].strip("| `"): [cell.strip(" |") for cell in row[1:]] for row in cells if row[0].strip("| ")
    }


def _variables(settings: type[BaseSettings]) -> set[str]:
    return {
        str(field.validation_alias or f"ATELIER_{name.upper()}")
        for name, field in settings.model_fields.items()
    }


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    there_are = _variables(PortalSettings) | _variables(WebuiSettings) | _variables(WorkerSettings)
    documented = {name for name in _table("settings.md") if name.startswith(("ATELIER_", "SAGEMAKER_"))}
    assert there_are <= documented, sorted(there_are - documented)
    assert documented - there_are == {"ATELIER_GOLDEN"}


def test_every_permission_is_documented_with_its_roles() -> None:
    rows = _table("permissions.md")
    for name, permission in PERMISSIONS.items():
        risk, description, designer, _ = rows[name]
        assert (risk, description) == (permission.risk, permission.description)
        assert (designer == "yes") == (name in ROLES[DESIGNER]), name
    assert {name for name in rows if "." in name} == set(PERMISSIONS)


def test_every_error_is_documented_as_it_is() -> None:
    rows = _table("errors.md")
    for code, error in ERRORS.items():
        status, retry, _ = rows[code]
        assert (int(status), retry == "yes") == (error.http_status, error.retryable), code
    assert {code for code in rows if "_" in code or code in ERRORS} == set(ERRORS)


def test_every_hook_is_documented_with_the_names_of_its_arguments() -> None:
    rows = _table("hooks.md")
    hooks = {
        name: [each for each in inspect.signature(hook).parameters if each != "self"]
        for hooks in (SchemaHooks, WorkerHooks)
        for name, hook in vars(hooks).items()
        if callable(hook) and not name.startswith("_")
    }
    assert len(hooks) >= 9
    for name, arguments in hooks.items():
        assert re.findall(r"`(\w+)`", rows[name][0]) == arguments, name
    assert set(rows) - {"Hook"} == set(hooks)


def _commands(declared: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, list[str]]]:
    """Every command below `declared` with the long options it takes."""
    groups = [each for each in declared._actions if isinstance(each, argparse._SubParsersAction)]
    if not groups:
        options = [
            name for each in declared._actions for name in each.option_strings if name.startswith("--")
        ]
        yield words, [name for name in options if name != "--help"]
    for group in groups:
        for name, command in group.choices.items():
            yield from _commands(command, f"{words} {name}")


def test_every_command_is_documented_with_its_options() -> None:
    rows = _table("cli.md")
    commands = dict(_commands(parser(), "atelier"))
    assert {name for name in rows if name.startswith("atelier")} == set(commands)
    for name, options in commands.items():
        assert [each for each in options if f"`{each}`" not in rows[name][0]] == [], name


def test_every_requirement_has_its_row_and_a_state() -> None:
    rows = _table("requirements.md")
    expected = {
        f"{document}-{number:02}" for document, count in ROWS.items() for number in range(1, count + 1)
    }
    assert {name for name in rows if re.fullmatch(r"S\d-\d+", name)} == expected
    for name in sorted(expected):
        assert re.match(r"works|partly: |planned: \*", rows[name][1]), f"{name}: {rows[name][1]!r}"


def test_a_requirement_that_works_or_is_tested_names_a_test_that_exists() -> None:
    for name, cells in _table("requirements.md").items():
        if not re.fullmatch(r"S\d-\d+", name):
            continue
        named = _tests_named(cells[2])
        assert named or cells[1].startswith(("planned", "partly")), (
            f"{name} works, says the page, and names no test"
        )
        assert _unknown(named) == [], name


def test_a_point_of_security_names_tests_that_exist() -> None:
    named = _tests_named(_page("security.md"))
    assert len(named) >= 40
    assert _unknown(named) == []


def _tests_named(text: str) -> list[tuple[str, str]]:
    """(file, test or "") of every test that a text names."""
    return re.findall(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`", text)


def _unknown(named: list[tuple[str, str]]) -> list[str]:
    """Those that do not exist."""
    return [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file()
        or (test and test not in {each.name for each in functions_of(ROOT / file)})
    ]


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "extensions").glob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists()
    ]
    assert len(pages) > 10
    assert not broken, broken


def test_every_decision_is_listed_and_at_most_a_page() -> None:
    records = [path for path in (ROOT / "docs" / "adr").glob("*.md") if path.name != "README.md"]
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", _page("adr/README.md"))
    assert sorted(path.name for path in records) == sorted(listed)
    long = [path.name for path in records if len(path.read_text(encoding="utf-8").splitlines()) > 60]
    assert not long, long
