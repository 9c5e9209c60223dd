"""The dictionary of log events lists what the code logs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.deploy.manifests import ROOT

PAGE = (ROOT / "deploy" / "LOGS.md").read_text("utf-8")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FORM = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")


class Logged(NamedTuple):
    """One place that logs."""

    where: str
    event: ast.expr
    level: str
    fields: ast.expr | None


def logged() -> Iterator[Logged]:
    """Every call of a logger, and of `emit`, in the edge and the service."""
    for path in sorted((*ROOT.glob("gateway/**/*.py"), *ROOT.glob("services/**/*.py"))):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            called = ast.unparse(node.func)
            if called == "emit":
                yield Logged(where, node.args[1], "info", node.args[2])
            elif re.fullmatch(r"(\w+\.)?_?(log|access)\.\w+", called):
                level = called.rpartition(".")[2]
                if level in LEVELS:
                    extra = next(
                        (word.value for word in node.keywords if word.arg == "extra"), None
                    )
                    yield Logged(where, node.args[0], level.replace("exception", "error"), extra)


def constants(event: ast.expr) -> list[str]:
    """The constant names of an event: one, or one of two."""
    choices = [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]
    return [str(choice.value) for choice in choices if isinstance(choice, ast.Constant)]


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of a table of the page."""
    _, _, section = PAGE.partition(f"## {heading}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> set[str]:
    """The names that a cell lists."""
    return set(re.findall(r"`([^`]+)`", cell))


LOGGED = list(logged())
EVENTS = {row[0].strip("`"): row for row in table("Events")}
FIELDS = {name for row in table("Fields") for name in names(row[0])}


def test_events_are_constants_of_one_form() -> None:
    """Each event is a constant `noun.past_participle`."""
    assert len(LOGGED) >= 40
    for place in LOGGED:
        found = constants(place.event)
        assert found, f"{place.where} logs an event that is not a constant"
        assert all(FORM.fullmatch(event) for event in found), f"{place.where}: {found}"


def test_the_page_lists_exactly_the_events_of_the_code() -> None:
    """Neither the code nor the page has an event that the other lacks."""
    assert {event for place in LOGGED for event in constants(place.event)} == EVENTS.keys()


def test_rows_have_the_levels_of_the_code() -> None:
    """Each row lists all levels with which its event is logged."""
    levels: dict[str, set[str]] = {}
    for place in LOGGED:
        for event in constants(place.event):
            levels.setdefault(event, set()).add(place.level)
    listed = {event: set(row[1].split(", ")) for event, row in EVENTS.items()}

    assert listed == levels


def test_rows_have_the_fields_of_the_code() -> None:
    """Fields that stand at the place that logs are in the event's row."""
    for place in LOGGED:
        if not isinstance(place.fields, ast.Dict):
            continue
        fields = {ast.literal_eval(key) for key in place.fields.keys if key is not None}
        for event in constants(place.event):
            assert fields <= names(EVENTS[event][2]), f"{place.where}: {event}"


def test_each_field_is_explained_once() -> None:
    """The table of fields has those of all rows, and no other."""
    used = {name for event, row in EVENTS.items() for name in names(row[2]) if name not in EVENTS}

    assert used == FIELDS
