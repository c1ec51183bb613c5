"""Rules of the two web processes that a reader could miss in review."""

from __future__ import annotations

import ast

from tests.architecture.source import Function, functions_of, own_nodes, product_files, shown, tree_of

# Files that may use gr.HTML, each with a static template and nothing a user wrote in it.
STATIC_HTML: frozenset[str] = frozenset()
VERBS = {"get", "post", "put", "patch", "delete", "head", "options", "api_route", "route", "websocket"}


def test_no_html_component_shows_what_a_user_wrote() -> None:
    # Gradio evaluates such a component's template as JavaScript in the browser: a stored prompt would run
    # there.
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rsplit(".", 1)[-1] == "HTML"
        and shown(path) not in STATIC_HTML
    ]
    assert not found, found


def _calls(function: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(node, ast.Call) for line in function.body for node in ast.walk(line))


def _is_route(function: Function) -> bool:
    decorators = (each.func if isinstance(each, ast.Call) else each for each in function.decorator_list)
    return any(isinstance(each, ast.Attribute) and each.attr in VERBS for each in decorators)


def _waits(function: ast.AsyncFunctionDef) -> bool:
    waiting = ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield | ast.YieldFrom
    return any(
        isinstance(node, waiting) or (isinstance(node, ast.comprehension) and node.is_async)
        for node in own_nodes(function)
    )


def test_no_route_is_async_without_awaiting_something() -> None:
    # Such a route does its blocking work on the event loop, and every other request waits. One that calls
    # nothing has no work.
    web = [path for path in product_files() if shown(path).split("/")[0] in ("portal", "webui")]
    routes = [(path, each) for path in web for each in functions_of(path) if _is_route(each)]
    blocking = [
        f"{shown(path)}:{each.lineno} {each.name}"
        for path, each in routes
        if isinstance(each, ast.AsyncFunctionDef) and not _waits(each) and _calls(each)
    ]
    assert not blocking, blocking
    assert len(routes) >= 20, "the search for routes has stopped finding them"
