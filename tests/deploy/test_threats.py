"""The threat note names tests that there are, and options that are known."""

from __future__ import annotations

import re

import pytest

from services.cli.arguments import parser
from tests.deploy.manifests import ROOT

NOTE = (ROOT / "deploy" / "THREATS.md").read_text("utf-8")


def rows() -> list[list[str]]:
    """The cells of the table of what is defended."""
    _, _, defended = NOTE.partition("## What is defended")
    table, _, _ = defended.partition("## What is not")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ][1:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_what_is_defended_is_shown(row: list[str]) -> None:
    """Every row has a threat, a defence, and tests that exist."""
    _, defence, shown = row
    named = re.findall(r"`([^`]+)`", shown)

    assert defence
    assert named
    for path in named:
        assert (ROOT / "tests" / path).exists(), path


def test_options_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    """What it tells operators to say, the command understands."""
    with pytest.raises(SystemExit):
        parser({}).parse_args(["serve", "--help"])
    known = capsys.readouterr().out

    for option in re.findall(r"`(--[a-z-]+)", NOTE):
        assert option in known


def test_it_says_when_it_must_be_revised() -> None:
    """A note that nobody revises is worse than none."""
    _, _, triggers = NOTE.partition("## When to revise")

    assert triggers.count("\n- ") >= 5
