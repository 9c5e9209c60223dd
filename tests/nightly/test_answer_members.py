"""Answers with members that no field has, the short form."""

from __future__ import annotations

from tests.nightly.answer_members import run


def test_members_of_answers_arrive() -> None:
    """Three thousand answers, the same each time."""
    run(3_000, seed=1)
