"""The house rules of CONTRIBUTING.md, measured."""

from __future__ import annotations

import ast
import re
import statistics

import pytest

from tests.architecture.source import (
    Function,
    all_files,
    files_of_tests,
    functions_of,
    imports_of,
    module_of,
    product_files,
    shown,
    tree_of,
)

LONGEST_FUNCTION, P90_FUNCTION, LONGEST_MODULE = 60, 30, 400
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "misc", "common"}
# Written in two halves, so that this file does not name what it forbids.
LATER = re.compile(
    r"NotImplemented" + r"Error|\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|not implemented|for now\b", re.I
)


def _lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{shown(path)}:{function.lineno} {function.name}: {_lines(function)} lines"
        for path in product_files()
        for function in functions_of(path)
        if _lines(function) > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_nine_functions_in_ten_have_at_most_thirty_lines() -> None:
    lengths = [_lines(function) for path in product_files() for function in functions_of(path)]
    assert len(lengths) > 100
    assert statistics.quantiles(lengths, n=10)[-1] <= P90_FUNCTION


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    lengths = {shown(path): path.read_text(encoding="utf-8").count("\n") for path in product_files()}
    long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > LONGEST_MODULE]
    assert not long, "\n".join(long)


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [shown(path) for path in all_files() if path.stem in VAGUE or path.parent.name in VAGUE]
    assert not vague, vague


def test_nothing_is_left_for_later_in_the_product() -> None:
    found = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in product_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if LATER.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_function_is_annotated() -> None:
    bare = []
    for path in all_files():
        for function in functions_of(path):
            given = function.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            missing = [
                each.arg for each in named if each and not each.annotation and each.arg not in ("self", "cls")
            ]
            if missing or function.returns is None:
                bare.append(f"{shown(path)}:{function.lineno} {function.name}({', '.join(missing)})")
    assert not bare, "\n".join(bare)


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        shown(path)
        for path in all_files()
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree_of(path))
    ]
    assert not silent, silent


_ASSERTING = re.compile(r"raises|warns|assert|check|expect|verify|fail")


def _asserts(test: Function) -> bool:
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and _ASSERTING.search(ast.unparse(node.func)) is not None)
        for node in ast.walk(test)
    )


def test_every_test_asserts_something() -> None:
    tests = [
        (shown(path), test)
        for path in files_of_tests()
        for test in functions_of(path)
        if test.name.startswith("test_")
    ]
    idle = [f"{name}:{test.lineno} {test.name}" for name, test in tests if not _asserts(test)]
    assert tests
    assert not idle, "\n".join(idle)


def test_no_test_sleeps() -> None:
    sleeping = [
        f"{shown(path)}:{node.lineno}"
        for path in files_of_tests()
        if path.stem.startswith("test_") or path.stem == "conftest"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and re.search(r"(^|\.)sleep$", ast.unparse(node.func))
    ]
    assert not sleeping, sleeping


@pytest.fixture(scope="module")
def import_graph() -> dict[str, set[str]]:
    """Which module imports which at run time, inside the product."""
    modules = {module_of(path): path for path in product_files()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        guarded = _type_checking_lines(tree_of(path))
        graph[name] = set()
        for target, line in imports_of(path):
            if line in guarded:
                continue
            known = next((each for each in _prefixes(target) if each in modules), None)
            if known and known != name and not name.startswith(known + "."):
                graph[name].add(known)
    return graph


def _prefixes(dotted: str) -> list[str]:
    parts = dotted.split(".")
    return [".".join(parts[:size]) for size in range(len(parts), 0, -1)]


def _type_checking_lines(tree: ast.Module) -> set[int]:
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def test_no_modules_import_each_other_in_a_circle(import_graph: dict[str, set[str]]) -> None:
    remaining = {name: set(targets) for name, targets in import_graph.items()}
    # Taking away what imports nothing that is left, again and again, ends with the circles and what leans on
    # them.
    while leaves := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for leaf in leaves:
            del remaining[leaf]
    assert not remaining, f"in or behind a circle: {sorted(remaining)}"
