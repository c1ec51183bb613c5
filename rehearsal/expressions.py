"""CloudWatch's metric math, as far as alarms use it: arithmetic, comparisons, FILL, IF, MAX, MIN, SUM, AVG.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

Series = list[float | None]
"""One value for each period, the oldest first; None where there is no data."""

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right,
}
_COMPARED: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_REDUCED: Mapping[str, Callable[[list[float]], float]] = {
    "MAX": max,
    "MIN": min,
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
}


def evaluate(expression: str, known: Mapping[str, Series], periods: int) -> Series:
    """The expression's value for each of `periods` periods. Raises ValueError for what is not understood."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"The expression {expression!r} cannot be read.") from error
    return _Reading(known, periods).value(tree)


class _Reading:
    def __init__(self, known: Mapping[str, Series], periods: int) -> None:
        self._known = known
        self._periods = periods

    def value(self, node: ast.expr) -> Series:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return [float(node.value)] * self._periods
        if isinstance(node, ast.Name) and node.id in self._known:
            return self._known[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [None if each is None else -each for each in self.value(node.operand)]
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._joined(_BINARY[type(node.op)], node.left, node.right)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            return self._joined(_COMPARED[type(node.ops[0])], node.left, node.comparators[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, node.args)
        raise ValueError(f"The rehearsal does not understand {ast.unparse(node)!r}.")

    def _joined(self, join: Callable[[float, float], float], left: ast.expr, right: ast.expr) -> Series:
        found: Series = []
        for one, other in zip(self.value(left), self.value(right), strict=True):
            if one is None or other is None or (join is _BINARY[ast.Div] and other == 0):
                found.append(None)
            else:
                found.append(float(join(one, other)))
        return found

    def _call(self, name: str, arguments: list[ast.expr]) -> Series:
        if name == "FILL" and len(arguments) == 2:
            return self._filled(self.value(arguments[0]), arguments[1])
        if name == "IF" and len(arguments) in (2, 3):
            condition, *branches = (self.value(each) for each in arguments)
            otherwise = branches[1] if len(branches) > 1 else [None] * self._periods
            return [
                None if asked is None else (yes if asked else no)
                for asked, yes, no in zip(condition, branches[0], otherwise, strict=True)
            ]
        if name in _REDUCED and len(arguments) == 1 and isinstance(arguments[0], ast.List):
            columns = zip(*(self.value(each) for each in arguments[0].elts), strict=True)
            rows = [[each for each in column if each is not None] for column in columns]
            return [_REDUCED[name](row) if row else None for row in rows]
        raise ValueError(f"The rehearsal does not know the function {name} with these arguments.")

    def _filled(self, series: Series, by: ast.expr) -> Series:
        if not (isinstance(by, ast.Name) and by.id == "REPEAT"):
            filler = self.value(by)
            return [other if each is None else each for each, other in zip(series, filler, strict=True)]
        last: float | None = None
        found: Series = []
        for each in series:
            last = last if each is None else each
            found.append(last)
        return found
