"""The source tree as the architecture tests read it: files, syntax trees, module names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("atelier", "portal", "webui", "workers", "extensions", "rehearsal")
OTHER_CODE = ("tests", "bench", "deployment", "examples")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def product_files() -> tuple[Path, ...]:
    """Every module of the packages but the database's migrations, which are history."""
    return tuple(
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations/versions" not in path.as_posix()
    )


@cache
def files_of_tests() -> tuple[Path, ...]:
    """Every Python file under tests/."""
    return tuple(sorted((ROOT / "tests").rglob("*.py")))


@cache
def all_files() -> tuple[Path, ...]:
    """Every Python file of the project but migrations."""
    others = (path for folder in OTHER_CODE[1:] for path in sorted((ROOT / folder).rglob("*.py")))
    return product_files() + files_of_tests() + tuple(others)


@cache
def tree_of(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """The path as a person writes it."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """The dotted name under which `path` is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions_of(path: Path) -> Iterator[Function]:
    """Every function and method of the file, nested ones too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute dotted names the file imports anywhere, with the line. `from a import b` gives `a.b`."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            yield from (
                (f"{base}{node.module or ''}".rstrip(".") + f".{alias.name}", node.lineno)
                for alias in node.names
            )


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of functions and classes defined inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
