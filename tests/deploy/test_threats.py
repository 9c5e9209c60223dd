"""The threat model names tests that exist and options that the command has."""

from __future__ import annotations

import re

import pytest

from services.cli.arguments import parser
from tests.deploy.manifests import ROOT

NOTE = (ROOT / "deploy" / "THREATS.md").read_text("utf-8")


def rows() -> list[list[str]]:
    """The cells of the table under the heading `Defended`."""
    _, _, defended = NOTE.partition("## Defended")
    table, _, _ = defended.partition("## Not defended")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ][1:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_defence_names_tests_that_exist(row: list[str]) -> None:
    """Every row has a threat, a defence, and tests that exist."""
    _, defence, shown = row
    named = re.findall(r"`([^`]+)`", shown)

    assert defence
    assert named
    for path in named:
        assert (ROOT / "tests" / path).exists(), path


def test_the_table_is_found() -> None:
    """The table of defences has its rows; without them the test above would check nothing."""
    assert len(rows()) >= 15


def test_options_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option in the text is an option of `pomogator serve`."""
    with pytest.raises(SystemExit):
        parser({}).parse_args(["serve", "--help"])
    known = capsys.readouterr().out

    for option in re.findall(r"`(--[a-z-]+)", NOTE):
        assert option in known


def test_it_lists_triggers_for_a_revision() -> None:
    """The section `When to revise` has at least five triggers."""
    _, _, triggers = NOTE.partition("## When to revise")

    assert triggers.count("\n- ") >= 5
