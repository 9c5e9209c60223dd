"""Betas that a request may ask for, and what comes with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.anthropic.betas import beta_headers, context_management
from services.providers.base import Notes

CLEARS = "context-management-2025-06-27"


def asking(*betas: str, **fields: Any) -> ChatCompletionSpec:
    """A request with these betas and unknown fields."""
    return ChatCompletionSpec(
        model="m",
        messages=[Message(role="user", content=[TextPart(text="Hi")])],
        betas=[*betas],
        extra_json=json.dumps(fields).encode() if fields else b"",
    )


@pytest.mark.parametrize(
    "beta", [CLEARS, "interleaved-thinking-2025-05-14", "claude-code-20250219"]
)
def test_a_harmless_beta_is_sent(beta: str) -> None:
    """As it is, without a note."""
    notes = Notes()
    assert beta_headers(asking(beta), notes) == {"anthropic-beta": beta}
    assert not notes.all


@pytest.mark.parametrize(
    "beta",
    [
        *("context-1m-2025-08-07", "files-api-2025-04-14", "mcp-client-2025-04-04"),
        *("fast-mode-2026-02-01", "effort", f"{CLEARS}\r\nx-evil: 1", "новая-2026-01-01"),
    ],
)
def test_any_other_beta_is_held_back(beta: str) -> None:
    """With a note, or a refusal in strict mode."""
    notes = Notes()
    assert beta_headers(asking(beta, CLEARS), notes) == {"anthropic-beta": CLEARS}
    assert [note.param for note in notes.all] == ["betas"]
    with pytest.raises(Failure):
        beta_headers(asking(beta), Notes(strict=True))


@pytest.mark.parametrize(
    ("kind", "is_sent"), [("clear_tool_uses_20250919", True), ("compact_20260112", False)]
)
def test_only_edits_that_clear_are_sent(kind: str, is_sent: bool) -> None:
    """A compaction is another answer of the model, which costs."""
    field = {"edits": [{"type": kind}]}
    sent = context_management(asking(CLEARS, context_management=field))
    assert {name: json.loads(bytes(raw)) for name, raw in sent.items()} == (
        {"context_management": field} if is_sent else {}
    )
    assert context_management(asking(context_management=field)) == {}


def test_a_field_of_another_form_is_not_sent() -> None:
    """Whatever it is."""
    fields: list[Any] = [1, [], {"edits": [1]}, {"edits": None}, {"edits": [], "compact": {}}]
    for field in fields:
        assert context_management(asking(CLEARS, context_management=field)) == {}
