"""Completion renderer: a whole answer as OpenAI's `chat.completion` object."""

from __future__ import annotations

import msgspec

from gateway.surfaces.openai_chat.common_members import (
    FINISH_REASONS,
    STOP,
    extra_content,
    function_call,
    render_usage,
)
from gateway.surfaces.other_members import with_others
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall

_encode = msgspec.json.Encoder().encode


def render_completion(
    completion: Completion,
    *,
    thinking_parts: bool,
    include_cost: bool = False,
    functions: bool = False,
    names_provider: bool = False,
) -> bytes:
    """Return the body of a whole answer.

    With `thinking_parts` the content of a model that reasoned is a list of a thinking and a text
    part. In either case the reasoning is in `reasoning_content`, too, as a string; and in
    OpenRouter's `reasoning` and `reasoning_details` where the message has that form. With
    `names_provider` it has `provider` and `system_fingerprint`, too, which typed clients of
    OpenRouter's API demand.
    """
    cost = completion.cost_nano_usd or 0 if include_cost else None
    rendered: dict[str, object] = {
        "id": completion.completion_id,
        "object": "chat.completion",
        "created": completion.create_time_s,
        "model": completion.model,
        "choices": [
            _choice(choice, thinking_parts=thinking_parts, functions=functions)
            for choice in completion.choices
        ],
        "usage": render_usage(completion.usage, cost),
    }
    if completion.service_tier:
        rendered["service_tier"] = completion.service_tier
    if completion.system_fingerprint:
        rendered["system_fingerprint"] = completion.system_fingerprint
    if completion.extra_json:
        rendered = with_others(rendered, completion.extra_json)
    if names_provider:
        rendered.setdefault("provider", completion.model.partition("/")[0])
        rendered.setdefault("system_fingerprint", None)
    return _encode(rendered)


def _choice(choice: Choice, *, thinking_parts: bool, functions: bool) -> dict[str, object]:
    rendered: dict[str, object] = {
        "index": choice.index,
        "message": _message(choice.message, thinking_parts=thinking_parts, functions=functions),
        "logprobs": msgspec.Raw(choice.logprobs_json) if choice.logprobs_json else None,
        "finish_reason": FINISH_REASONS[functions].get(choice.finish_reason, STOP),
    }
    if choice.native_finish_reason:
        rendered["native_finish_reason"] = choice.native_finish_reason
    return with_others(rendered, choice.extra_json) if choice.extra_json else rendered


def _message(message: Message, *, thinking_parts: bool, functions: bool) -> dict[str, object]:
    parts = message.content
    if len(parts) == 1 and type(only := parts[0]) is TextPart:
        text, reasoning = only.text, ""
    else:
        text = "".join([part.text for part in parts if type(part) is TextPart])
        reasoning = "".join([part.text for part in parts if type(part) is ReasoningPart])
    silent = not text and (message.tool_calls or message.refusal or message.extra_json)
    rendered: dict[str, object] = {
        "role": "assistant",
        "content": None if silent else text,
        "refusal": message.refusal or None,
    }
    if reasoning:
        if thinking_parts and rendered["content"] is not None:
            rendered["content"] = [
                {"type": "thinking", "thinking": reasoning},
                {"type": "text", "text": text},
            ]
        rendered["reasoning_content"] = reasoning
    if message.reasoning_details_json:
        rendered["reasoning"] = reasoning or None
        rendered["reasoning_details"] = msgspec.Raw(message.reasoning_details_json)
    if message.reasoning_state:
        rendered["reasoning_state"] = message.reasoning_state
    calls = message.tool_calls
    if calls and functions:
        first, *calls = calls  # The old form has one call.
        rendered["function_call"] = function_call(_function(first), first)
    if calls:
        rendered["tool_calls"] = [_tool_call(call) for call in calls]
    return with_others(rendered, message.extra_json) if message.extra_json else rendered


def _tool_call(call: ToolCall) -> dict[str, object]:
    if call.type == "custom":
        custom = {"name": call.name, "input": call.arguments}
        rendered: dict[str, object] = {"id": call.id, "type": "custom", "custom": custom}
    else:
        rendered = {"id": call.id, "type": "function", "function": _function(call)}
    return with_others(rendered | extra_content(call), call.extra_json)


def _function(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments}
