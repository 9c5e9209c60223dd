"""Reasoning: three vocabularies for how much a model thinks.

reasoning_effort                                   OpenAI
thinking {type, budget_tokens}                     Anthropic, and this API's own page
reasoning {effort, max_tokens, exclude, enabled}   OpenRouter
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.errors import invalid
from gateway.surfaces.json_fields import integer, one_of, read
from services.common.chat_names import EFFORTS


class _Thinking(Struct):
    type: str | None = None
    budget_tokens: int | float | None = None


class _Reasoning(Struct):
    effort: str | None = None
    max_tokens: int | float | None = None
    exclude: bool | None = None
    enabled: bool | None = None


_STRING = msgspec.json.Decoder(str)
_THINKING = msgspec.json.Decoder(_Thinking)
_REASONING = msgspec.json.Decoder(_Reasoning)

MODES: Mapping[str, chat.ThinkingMode.ValueType] = {
    "enabled": chat.THINKING_MODE_ENABLED,
    "disabled": chat.THINKING_MODE_DISABLED,
    "adaptive": chat.THINKING_MODE_ADAPTIVE,
}


def decode_reasoning(fields: dict[str, Raw], spec: chat.ChatCompletionSpec) -> None:
    """Move the fields above from `fields` to `spec`.

    Raises:
        ApiError: a field has another shape, or two contradict each other.
    """
    effort = fields.pop("reasoning_effort", None)
    thinking = fields.pop("thinking", None)
    reasoning = fields.pop("reasoning", None)
    if effort is not None:
        name = read("reasoning_effort", effort, _STRING)
        spec.reasoning_effort = one_of("reasoning_effort", name, EFFORTS)
    if thinking is not None:
        _think(read("thinking", thinking, _THINKING), spec.thinking)
    if reasoning is not None:
        if thinking is not None:
            raise invalid("reasoning", "Give `reasoning` or `thinking`, not both.")
        _reason(read("reasoning", reasoning, _REASONING), spec)


def _think(asked: _Thinking, thinking: chat.Thinking) -> None:
    thinking.SetInParent()
    if asked.type is not None:
        thinking.mode = one_of("thinking.type", asked.type, MODES)
    if asked.budget_tokens is not None:
        thinking.budget_tokens = integer("thinking.budget_tokens", asked.budget_tokens, 32)


def _reason(asked: _Reasoning, spec: chat.ChatCompletionSpec) -> None:
    if asked.effort is not None:
        effort = one_of("reasoning.effort", asked.effort, EFFORTS)
        if spec.reasoning_effort not in {chat.REASONING_EFFORT_UNSPECIFIED, effort}:
            message = "`reasoning.effort` and `reasoning_effort` are one thing, but differ."
            raise invalid("reasoning_effort", message)
        spec.reasoning_effort = effort
    if asked.max_tokens is not None:
        spec.thinking.budget_tokens = integer("reasoning.max_tokens", asked.max_tokens, 32)
    if asked.exclude is not None:
        spec.thinking.excluded = asked.exclude
    if asked.enabled is not None:
        spec.thinking.mode = MODES["enabled" if asked.enabled else "disabled"]
