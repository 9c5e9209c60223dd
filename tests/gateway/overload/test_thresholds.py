"""The table of thresholds is complete, and documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.overload import thresholds

FOLDER = Path(thresholds.__file__).parent
TABLE = "thresholds.py"
MODULES = sorted(path.name for path in FOLDER.glob("*.py") if path.name != TABLE)

NO_THRESHOLDS = {0, 1, 2, 3}
"""Counts and steps: an increment, a doubling, the digits of a rounded number."""
KERNEL_FACTS = {2, 60}
"""The limit near 2^63 by which control groups of version 1 mean none."""


def numbers(name: str) -> Iterator[float]:
    """Yield the numbers that are written in a module."""
    for node in ast.walk(ast.parse((FOLDER / name).read_text("utf-8"))):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value


@pytest.mark.parametrize("name", MODULES)
def test_no_threshold_is_elsewhere(name: str) -> None:
    """Other modules of the package have no number of their own."""
    allowed = NO_THRESHOLDS | (KERNEL_FACTS if name == "cgroup.py" else set())

    assert set(numbers(name)) <= allowed


def test_every_threshold_is_documented() -> None:
    """A docstring follows each constant."""
    body = ast.parse((FOLDER / TABLE).read_text("utf-8")).body
    undocumented = [
        ast.unparse(statement)
        for statement, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(statement, ast.Assign) and not isinstance(after, ast.Expr)
    ]

    assert not undocumented
