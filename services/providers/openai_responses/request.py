"""Encoder of a spec as the body of `POST /responses`.

The provider is told to keep nothing: `store` is false, and reasoning comes back sealed. A stream is
requested as for chat completions: see `services.providers.openai.request`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.openai.pass_through import on_request, stream_options
from services.providers.openai.request import may_take_long, other_effort
from services.providers.openai_responses.input_items import input_items
from services.providers.openai_responses.input_parts import MARK, NO_MARKS
from services.providers.openai_responses.own_fields import (
    INCLUDE,
    note_unsent,
    own_fields,
    reasoning_members,
)
from services.providers.openai_responses.tools import knows_tool, tool, tool_choice
from services.providers.openai_responses.wire import Json
from services.providers.translate import (
    features,
    output_limits,
    parameters,
    thinking,
    unseen_reasoning,
)
from services.providers.translate.history.legal import made_legal
from services.providers.translate.other_types import other_object, without_foreign_tools
from services.providers.translate.raw_json import valid_json
from services.providers.translate.thinking import ThinkingPlan

PATH = "/responses"

NAMES: Mapping[str, str] = {
    name: name
    for name in (
        *("temperature", "top_p", "parallel_tool_calls", "service_tier", "metadata"),
        *("prompt_cache_key", "verbosity", "logprobs", "top_logprobs", "user"),
    )
}
"""Parameters that the API has. Those of the second line take another form in the body."""

USER_MAX = 64
"""Maximum length of `safety_identifier` in characters."""

SEALED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

_UNSET = Thinking()


def encode(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
) -> UpstreamRequest:
    """Encode `spec` as a request. See `services.providers.base.Dialect`."""
    if spec.tools:
        spec = without_foreign_tools(spec, knows_tool(target), notes)
    features.require_features(spec, target, chooses_hosted=True)
    if spec.betas:
        notes.dropped("betas", "The provider has none of Anthropic's betas.")
    if spec.cache_control_json:
        notes.dropped(MARK, NO_MARKS)
    note_unsent(spec, notes)
    legal = made_legal(spec, target, notes, plain_reasoning=False)
    spec = legal.spec
    plan = thinking.plan(spec, target, notes)
    body: Json = {
        "model": target.model,
        "input": input_items(legal, target, notes),
        **_limit(plan, target, notes),
        **_parameters(spec, target, notes, plan),
        **_tools(spec, target, notes),
        **_reasoning(spec, plan, target, notes),
        "store": False,
    }
    _add_text(body, spec, target)
    if spec.extra_json:
        _add_own_fields(body, spec, target, notes)
    streamed = stream or may_take_long(plan)
    body["stream"] = streamed
    if spec.extra_json and (options := stream_options(spec, target, notes, streamed=streamed)):
        body["stream_options"] = options
    return UpstreamRequest(
        path=PATH,
        body=msgspec.json.encode(body),
        streamed=streamed,
        thinking_tokens=unseen_reasoning.hidden_tokens(spec, plan, target.capabilities),
    )


def _limit(plan: ThinkingPlan, target: Target, notes: Notes) -> Json:
    limit = plan.max_tokens
    if limit is None:
        limit = output_limits.forced_limit(target, plan.budget_tokens, notes)
    if limit is None:
        return {}
    least = target.capabilities.min_max_tokens
    if limit < least:
        notes.clamped("max_tokens", f"The provider takes no limit below {least} tokens.")
    name = target.channel.quirks.renames.get("max_tokens", "max_output_tokens")
    return {name: max(limit, least)}


def _parameters(spec: ChatCompletionSpec, target: Target, notes: Notes, plan: ThinkingPlan) -> Json:
    """Parameters of the contract, and what the answer is to include."""
    held = on_request(spec, target, notes)
    names = {name: theirs for name, theirs in NAMES.items() if name not in held}
    found: Json = parameters.accepted(spec, names, target, notes, thinking=plan.active)
    include = [SEALED_REASONING] if target.capabilities.named_thinking else []
    if found.pop("logprobs", None) or "top_logprobs" in found:
        include.append(LOGPROBS)
    if include:
        found[INCLUDE] = include
    user = found.pop("user", None)
    if isinstance(user, str):
        is_short = len(user) <= USER_MAX and b"safety_identifier" not in spec.extra_json
        found["safety_identifier" if is_short else "user"] = user
    return found


def _tools(spec: ChatCompletionSpec, target: Target, notes: Notes) -> Json:
    if not features.shows_tools(spec, target, notes):
        return {}
    tools = [tool(each, notes) for each in spec.tools]
    made: Json = {"tools": tools}
    if spec.tool_choice is not None:
        if features.forces_tool(spec):
            able = target.capabilities.forced_tool_choice
            features.require(able, "tool_choice", "being made to call a tool")
        made["tool_choice"] = chosen = tool_choice(spec.tool_choice)
        if spec.tool_choice.other_json and isinstance(chosen, dict):
            is_sent = any(each.get("type") == chosen["type"] for each in tools)
            features.require(is_sent, "tool_choice", "tools of this type")
    return made


def _reasoning(spec: ChatCompletionSpec, plan: ThinkingPlan, target: Target, notes: Notes) -> Json:
    """Reasoning settings. Empty: the provider's defaults apply."""
    found: Json = reasoning_members(spec)
    capabilities = target.capabilities
    if effort := other_effort(spec, plan, target, notes):
        found["effort"] = effort
    elif plan.kind == "off":
        # A model that is off by itself may not know the word.
        if capabilities.thinking_default != "off" or capabilities.thinking == "unknown":
            found["effort"] = "none"
    elif plan.kind == "budget":
        found["effort"] = effort = thinking.effort_of(plan.budget_tokens)
        notes.mapped("thinking.budget_tokens", f"The provider takes an effort: `{effort}`.")
    elif plan.kind != "default":
        found["effort"] = plan.effort or capabilities.default_effort
    if plan.active and (summary := _summary(spec, target)):
        found["summary"] = summary
    return {"reasoning": found} if found else {}


def _summary(spec: ChatCompletionSpec, target: Target) -> str:
    """Summary to ask for. Empty: the caller has not asked for the text of the reasoning.

    An effort alone asks for none: the provider refuses summaries to organizations that it has not
    verified.
    """
    asked = spec.thinking or _UNSET
    if asked.excluded:
        return ""
    wanted = target.thinking_by_name or asked.mode or asked.budget_tokens
    return asked.summary or ("auto" if wanted or asked.reasoning_details else "")


def _add_text(body: Json, spec: ChatCompletionSpec, target: Target) -> None:
    """Add the form of the answer's text."""
    text: Json = {}
    if verbosity := body.pop("verbosity", None):
        text["verbosity"] = verbosity
    wanted = spec.response_format
    if wanted is not None and (wanted.type in ("json_object", "json_schema") or wanted.other_json):
        able = "response_format" not in target.channel.quirks.drops
        features.require(able, "response_format", "JSON answers")
        text["format"] = _format(wanted)
    if text:
        body["text"] = text


def _format(wanted: ResponseFormat) -> Json:
    if wanted.other_json:
        return other_object(wanted.other_json, "response_format")
    if wanted.type == "json_object":
        return {"type": wanted.type}
    made: Json = {"type": wanted.type, "name": wanted.name or "answer"}
    if wanted.description:
        made["description"] = wanted.description
    if wanted.schema_json:
        made["schema"] = valid_json(wanted.schema_json, "response_format")
    return made | {"strict": bool(wanted.strict)}


def _add_own_fields(body: Json, spec: ChatCompletionSpec, target: Target, notes: Notes) -> None:
    """Add unknown fields. What the caller wants included joins what is included anyway."""
    found = own_fields(
        spec, {name: value for name, value in body.items() if name != INCLUDE}, target, notes
    )
    asked, include = found.pop(INCLUDE, None), body.get(INCLUDE)
    body |= found
    if isinstance(asked, list):
        mine = include if isinstance(include, list) else []
        body[INCLUDE] = [*mine, *(each for each in asked if each not in mine)]
