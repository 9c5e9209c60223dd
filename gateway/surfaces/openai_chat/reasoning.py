"""Reasoning: three vocabularies for how much a model thinks.

reasoning_effort                                   OpenAI
thinking {type, budget_tokens}                     Anthropic, and this API's own page
reasoning {effort, max_tokens, exclude, enabled}   OpenRouter; include_reasoning, before that

A request that has the third, or earlier answers with `reasoning_details`, gets its answer in
OpenRouter's form, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.errors import invalid
from gateway.surfaces.json_fields import boolean, integer, text
from gateway.surfaces.unknown_members import Reader, to_json
from services.domain.spec import EFFORTS, Effort, Thinking, ThinkingMode

ReasoningFields: TypeAlias = tuple[str, Thinking | None]
"""The effort, which may be a word of one provider, and the spec's `thinking`."""


class _Thinking(Struct, forbid_unknown_fields=True):
    type: str | None = None
    budget_tokens: int | float | None = None


class _Reasoning(Struct, forbid_unknown_fields=True):
    effort: str | None = None
    max_tokens: int | float | None = None
    exclude: bool | None = None
    enabled: bool | None = None


_THINKING: Reader[_Thinking] = Reader(_Thinking)
_REASONING: Reader[_Reasoning] = Reader(_Reasoning)

_NO_MODE: ThinkingMode = ""
MODES: Sequence[ThinkingMode] = ("enabled", "disabled", "adaptive")


def decode_reasoning(fields: dict[str, Raw], *, details_sent: bool) -> ReasoningFields:
    """Remove the fields above from `fields`, and decode them.

    `details_sent`: whether a message has `reasoning_details`. Raises ApiError: a field has another
    shape, or two contradict each other.
    """
    raw_effort = fields.pop("reasoning_effort", None)
    raw_thinking = fields.pop("thinking", None)
    raw_reasoning = fields.pop("reasoning", None)
    raw_include = fields.pop("include_reasoning", None)
    included = None if raw_include is None else boolean("include_reasoning", raw_include)
    effort = ""
    thinking = None
    if raw_effort is not None:
        effort = text("reasoning_effort", raw_effort)
    if raw_thinking is not None:
        thinking = _thinking(raw_thinking)
    if raw_reasoning is not None:
        if raw_thinking is not None:
            raise invalid("reasoning", "Give `reasoning` or `thinking`, not both.")
        effort, thinking = _reasoning(raw_reasoning, effort)
    excluded = included is False or (thinking is not None and thinking.excluded)
    details = not excluded and (raw_reasoning is not None or bool(included) or details_sent)
    if excluded or details:
        thinking = replace(thinking or _UNSET, excluded=excluded, reasoning_details=details)
    return effort, thinking


_UNSET = Thinking()


def _thinking(raw: Raw) -> Thinking:
    asked, unknown = _THINKING.read("thinking", raw)
    mode = next((known for known in MODES if known == asked.type), _NO_MODE)
    if asked.type is not None and not mode:  # A word of one provider, such as `auto`.
        unknown = {**(unknown or {}), "type": asked.type}
    budget = asked.budget_tokens
    return Thinking(
        mode=mode,
        budget_tokens=None if budget is None else integer("thinking.budget_tokens", budget, 32),
        extra_json=to_json(unknown),
    )


def known_effort(effort: str) -> Effort | None:
    """Return the effort if the contract has it."""
    return next((known for known in EFFORTS if known == effort), None)


def _reasoning(raw: Raw, effort: str) -> tuple[str, Thinking]:
    asked, unknown = _REASONING.read("reasoning", raw)
    if asked.effort is not None:
        if effort not in {"", asked.effort}:
            message = "`reasoning.effort` and `reasoning_effort` are one thing, but differ."
            raise invalid("reasoning_effort", message)
        effort = asked.effort
    budget, enabled = asked.max_tokens, asked.enabled
    modes: dict[bool | None, ThinkingMode] = {None: "", True: "enabled", False: "disabled"}
    thinking = Thinking(
        mode=modes[enabled],
        budget_tokens=None if budget is None else integer("reasoning.max_tokens", budget, 32),
        excluded=bool(asked.exclude),
        extra_json=to_json(unknown),
    )
    return effort, thinking
