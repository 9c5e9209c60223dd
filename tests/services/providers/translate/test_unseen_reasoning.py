from __future__ import annotations

from typing import Any

import pytest

from services.domain.spec import ChatCompletionSpec, Thinking
from services.providers.base import Notes
from services.providers.translate.thinking import BUDGETS, plan
from services.providers.translate.unseen_reasoning import hidden_tokens, reasons_unseen
from tests.services.providers.targets import target_of

SHOWN, HIDDEN = "qwen3-32b", "some-model"
"""A model whose reasoning is shown by default, and one of which nothing is known."""


def unseen(model: str, **asked: Any) -> tuple[bool, int]:
    """Whether a model may reason unseen, and how many tokens are plausible."""
    target = target_of(model, "openai")
    spec = ChatCompletionSpec(model="m", **asked)
    tokens = hidden_tokens(spec, plan(spec, target, Notes()), target.capabilities)
    return reasons_unseen(spec, target), tokens


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": "medium"},
        {"other_reasoning_effort": "MEDIUM"},
        {"thinking": Thinking(extra_json=b'{"type":"auto"}')},
        {"extra_json": b'{"chat_template_kwargs":{"enable_thinking":true}}'},
        {"extra_json": b'{"chatTemplateKwargs":{"thinking_budget":100}}'},
    ],
)
def test_reasoning_in_a_providers_words_is_asked_for(asked: Any) -> None:
    """As with the words of the contract."""
    assert unseen(HIDDEN, **asked) == (True, BUDGETS["medium"])


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"reasoning_effort": "none"},
        {"extra_json": b'{"chat_template_kwargs":{"enable_thinking":false}}'},
        {"extra_json": b'{"chat_template_kwargs":{"add_generation_prompt":true}}'},
        {"extra_json": b'{"chat_template_kwargs":1}'},
    ],
)
def test_no_reasoning_is_asked_for(asked: Any) -> None:
    """Nothing is estimated of a call without it."""
    assert unseen(HIDDEN, **asked) == (False, 0)


@pytest.mark.parametrize(
    "extra_json",
    [
        b'{"reasoning_format":"hidden"}',
        b'{"reasoningFormat":"hidden"}',
        b'{"include_reasoning":false}',
        b'{"separate_reasoning":false}',
        b'{"stream_reasoning":false}',
    ],
)
def test_fields_hide_what_would_be_shown(extra_json: bytes) -> None:
    """The rest of the answer is then needed to know what it costs."""
    assert unseen(SHOWN, reasoning_effort="medium", extra_json=extra_json) == (True, 8192)


@pytest.mark.parametrize(
    "extra_json", [b"", b'{"reasoning_format":"parsed"}', b'{"include_reasoning":true}']
)
def test_reasoning_that_is_shown_is_seen(extra_json: bytes) -> None:
    """It is counted as it arrives."""
    assert unseen(SHOWN, reasoning_effort="medium", extra_json=extra_json) == (False, 0)
