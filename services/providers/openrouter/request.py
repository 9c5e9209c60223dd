"""Encoder of a spec as a request to OpenRouter: OpenAI's, with more parameters and `reasoning`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from services.domain.conversation import Message
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.openai import messages
from services.providers.openai.request import ALL_NAMES, Form, common_body, finished, other_effort
from services.providers.translate import reasoning_state, thinking
from services.providers.translate.features import note_summary
from services.providers.translate.history import reasoning as history
from services.providers.translate.history.legal import made_legal
from services.providers.translate.other_types import without_foreign_tools
from services.providers.translate.raw_json import valid_json
from services.providers.translate.reasoning_state import Details
from services.providers.translate.thinking import ThinkingPlan

Json = dict[str, object]

FORM = Form(
    names=ALL_NAMES,
    cache_marks=True,
    tool_types=re.compile(r"openrouter:.+|web_search(_preview)?(_\d{4}_\d\d_\d\d)?"),
)

SETTINGS: Mapping[str, object] = {"usage": {"include": True}}
"""Members of every request."""

REASONING = "reasoning"
"""Field of messages for the reasoning of earlier turns, where there are no details of it."""


def encode(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
) -> UpstreamRequest:
    """Encode `spec` as a request. See `services.providers.base.Dialect`."""
    if spec.tools:
        spec = without_foreign_tools(spec, FORM.tools(target), notes)
    note_summary(spec, notes)
    spec = made_legal(spec, target, notes).spec
    plan = thinking.plan(spec, target, notes, disabled_reason=_thinking_refusal(spec, target))
    body = common_body(spec, target, notes, plan, FORM)
    marks = FORM.marks(target, notes)
    filled = plan.active and history.needs_filler(spec, target)
    earlier = messages.EarlierReasoning(REASONING, target, notes, filled=filled)
    body["messages"] = [
        messages.message(sent, target, notes, marks) | _earlier(sent, target, notes, earlier)
        for sent in spec.messages
    ]
    excluded = spec.thinking is not None and spec.thinking.excluded
    reasoning = _reasoning(plan, excluded=excluded)
    if effort := other_effort(spec, plan, target, notes):
        reasoning["effort"] = effort
    if reasoning:
        body["reasoning"] = reasoning
    body |= SETTINGS
    return finished(spec, body, target, notes, plan, stream=stream)


def _thinking_refusal(spec: ChatCompletionSpec, target: Target) -> str:
    """Reason for which the provider would refuse reasoning in this conversation. Empty: none."""

    def carries(index: int) -> bool:
        sent = spec.messages[index]
        if history.takes_text(target) and history.plain_text(sent) is not None:
            return True
        return _details(sent, target, Notes()) is not None

    return history.refusal(spec, target, carries)


def _reasoning(plan: ThinkingPlan, *, excluded: bool) -> Json:
    """Thinking plan as the object `reasoning`. Empty: the default applies."""
    found: Json = {}
    if plan.kind == "off":
        found["enabled"] = False
    elif plan.kind == "budget":
        found["max_tokens"] = plan.budget_tokens
    elif plan.effort:
        found["effort"] = plan.effort
    elif plan.kind != "default":
        found["enabled"] = True
    return found | ({"exclude": True} if excluded else {})


def _earlier(
    sent: Message, target: Target, notes: Notes, earlier: messages.EarlierReasoning
) -> Json:
    """Reasoning of an earlier turn: its details, else its text."""
    details = _details(sent, target, notes)
    return earlier.of(sent) if details is None else {"reasoning_details": details}


def _details(sent: Message, target: Target, notes: Notes) -> msgspec.Raw | None:
    """Array `reasoning_details` of an earlier turn, unchanged."""
    if sent.reasoning_details_json:
        return valid_json(sent.reasoning_details_json, "reasoning_details")
    blocks = reasoning_state.unpack(sent.reasoning_state, target.channel.dialect, notes)
    return next((block.json for block in blocks if isinstance(block, Details)), None)
