"""Encoder of a spec as a request to an OpenAI-compatible provider.

A stream is requested if the caller asked for one, or if a whole answer may take minutes: events
show that the answer is in progress, and tokens generated before a failure are counted. Other whole
answers are requested whole, which costs a fraction of the CPU time. An answer with audio is never
streamed, because providers encode it differently in a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from services.domain.spec import ChatCompletionSpec, ResponseFormat
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.openai import messages
from services.providers.openai.cache_marks import CacheMarks
from services.providers.openai.nested_pass_through import add_nested_members
from services.providers.openai.pass_through import extra_fields, on_request, stream_options
from services.providers.translate import (
    features,
    output_limits,
    parameters,
    reasoning_state,
    thinking,
    unseen_reasoning,
)
from services.providers.translate.history import reasoning
from services.providers.translate.history.legal import made_legal
from services.providers.translate.other_types import other_object, without_foreign_tools
from services.providers.translate.raw_json import valid_json
from services.providers.translate.reasoning_details import in_openai_form
from services.providers.translate.thinking import ThinkingPlan

PATH = "/chat/completions"

ALL_NAMES: Mapping[str, str] = {known.name: known.name for known in parameters.PARAMETERS}
"""All parameters of the contract, by the contract's name."""

NAMES: Mapping[str, str] = {name: name for name in ALL_NAMES if name != "top_a"}
"""Parameters of the dialect. OpenAI refuses some of them, as its models' capabilities state;
servers such as vLLM and llama.cpp accept them."""

REASONING = "reasoning_content"
"""Field of messages for the reasoning of earlier turns: DeepSeek's, which others have taken over.
OpenAI has none."""

LONG_ANSWER_TOKENS = 8192
"""Whole answers that may be longer than this are requested as a stream."""

STOPS_MAX = 4
"""The most stop sequences of a request."""

UNSTREAMED = frozenset({"audio"})
"""Fields that prevent a stream from being requested for a whole answer."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Form of the requests of one dialect."""

    names: Mapping[str, str]
    """The dialect's parameters, by the contract's names."""
    cache_marks: bool = False
    """Whether providers take `cache_control`. See `cache_marks`."""
    tool_types: re.Pattern[str] | None = None
    """Types of tools that the dialect has besides functions and custom tools."""

    def tools(self, target: Target) -> Callable[[str], bool]:
        """Return the function that returns whether a tool of another type may be sent."""
        allowed = target.channel.pass_through
        types = self.tool_types

        def knows(kind: str) -> bool:
            if isinstance(allowed, bool):
                return allowed
            if not target.sends_provider_tools:
                return False
            own = types is not None and types.fullmatch(kind) is not None
            return own or (isinstance(allowed, tuple) and kind in allowed)

        return knows

    def marks(self, target: Target, notes: Notes) -> CacheMarks:
        """Return the adder of cache marks of one request."""
        return CacheMarks(target, notes, known=self.cache_marks)


FORM = Form(names=NAMES)


def encode(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
) -> UpstreamRequest:
    """Encode `spec` as a request. See `services.providers.base.Dialect`."""
    if any(sent.reasoning_details_json for sent in spec.messages):
        converted = [in_openai_form(sent, notes) for sent in spec.messages]
        spec = msgspec.structs.replace(spec, messages=converted)
    if spec.tools:
        spec = without_foreign_tools(spec, FORM.tools(target), notes)
    features.note_summary(spec, notes)
    spec = made_legal(spec, target, notes).spec
    plan = thinking.plan(spec, target, notes, disabled_reason=_thinking_refusal(spec, target))
    body = common_body(spec, target, notes, plan, FORM)
    settings = _reasoning(plan, target)
    if effort := other_effort(spec, plan, target, notes):
        settings = settings | {"reasoning_effort": effort}
    if settings:
        body |= _renamed(settings, target)
    marks = FORM.marks(target, notes)
    filled = plan.active and reasoning.needs_filler(spec, target)
    earlier = messages.EarlierReasoning(REASONING, target, notes, filled=filled)
    for sent in spec.messages:
        if sent.reasoning_state:
            reasoning_state.unpack(sent.reasoning_state, target.channel.dialect, notes)
    body["messages"] = [
        messages.message(sent, target, notes, marks) | earlier.of(sent) for sent in spec.messages
    ]
    return finished(spec, body, target, notes, plan, stream=stream)


def may_take_long(plan: ThinkingPlan) -> bool:
    """Whether an answer may take minutes: the model reasons, or the token limit is high."""
    return plan.active or (plan.max_tokens or 0) > LONG_ANSWER_TOKENS


def _without_anthropics(spec: ChatCompletionSpec, notes: Notes) -> ChatCompletionSpec:
    """Return the spec without what only Anthropic's API takes."""
    if spec.betas:
        notes.dropped("betas", "The provider has none of Anthropic's betas.")
    if len(spec.stop) > STOPS_MAX:
        notes.dropped("stop", f"The provider takes {STOPS_MAX} stop sequences: the first ones.")
    return msgspec.structs.replace(spec, betas=[], stop=spec.stop[:STOPS_MAX])


def common_body(
    spec: ChatCompletionSpec, target: Target, notes: Notes, plan: ThinkingPlan, form: Form
) -> Json:
    """Body without messages and reasoning."""
    features.require_features(spec, target)
    if spec.betas or len(spec.stop) > STOPS_MAX:
        spec = _without_anthropics(spec, notes)
    body: Json = {"model": target.model, "messages": []}
    limit = plan.max_tokens
    if limit is None:
        limit = output_limits.forced_limit(target, plan.budget_tokens, notes)
    if limit is not None:
        body[output_limits.output_limit_name(target)] = limit
    if spec.cache_control_json:
        form.marks(target, notes).add(body, spec.cache_control_json)
    names = form.names
    held = on_request(spec, target, notes)
    if held:
        names = {name: theirs for name, theirs in names.items() if name not in held}
    body |= parameters.accepted(spec, names, target, notes, thinking=plan.active)
    if features.shows_tools(spec, target, notes):
        marks = form.marks(target, notes)
        body["tools"] = [messages.tool(tool, marks) for tool in spec.tools]
        if spec.tool_choice is not None:
            if features.forces_tool(spec):
                able = target.capabilities.forced_tool_choice
                features.require(able, "tool_choice", "being made to call a tool")
            body["tool_choice"] = messages.tool_choice(spec.tool_choice)
    wanted = spec.response_format
    if wanted is not None and (wanted.type in ("json_object", "json_schema") or wanted.other_json):
        able = "response_format" not in target.channel.quirks.drops
        features.require(able, "response_format", "JSON answers")
        body["response_format"] = _response_format(wanted)
    return body


def finished(
    spec: ChatCompletionSpec,
    body: Json,
    target: Target,
    notes: Notes,
    plan: ThinkingPlan,
    *,
    stream: bool,
) -> UpstreamRequest:
    """Request with `body` and the unknown fields that are passed through."""
    add_nested_members(spec, body, target, notes)
    if spec.extra_json:
        body |= extra_fields(spec, body, target, notes)
    may_stream = UNSTREAMED.isdisjoint(body)
    streamed = may_stream and (stream or may_take_long(plan))
    body["stream"] = streamed
    options: Json = {}
    if spec.extra_json:
        options = stream_options(spec, target, notes, streamed=streamed)
    if streamed and target.channel.quirks.stream_usage:
        options["include_usage"] = True
    if options:
        body["stream_options"] = options
    return UpstreamRequest(
        path=PATH,
        body=msgspec.json.encode(body),
        streamed=streamed,
        may_stream=may_stream,
        thinking_tokens=unseen_reasoning.hidden_tokens(spec, plan, target.capabilities),
    )


def _thinking_refusal(spec: ChatCompletionSpec, target: Target) -> str:
    """Reason for which the provider would refuse reasoning in this conversation. Empty: none."""
    return reasoning.refusal(
        spec, target, lambda index: reasoning.plain_text(spec.messages[index]) is not None
    )


def other_effort(spec: ChatCompletionSpec, plan: ThinkingPlan, target: Target, notes: Notes) -> str:
    """Return the effort in the provider's words. Empty: no effort is sent."""
    effort = spec.other_reasoning_effort
    if not effort:
        return ""
    drops = target.channel.quirks.drops
    able = target.capabilities.thinking != "none" and "reasoning_effort" not in drops
    if able and plan.kind != "off":
        return effort
    notes.dropped("reasoning_effort", "This model takes no such effort.")
    return ""


def _response_format(wanted: ResponseFormat) -> Json:
    if wanted.other_json:
        return other_object(wanted.other_json, "response_format")
    found: Json = {"type": wanted.type}
    if wanted.type == "json_schema":
        schema: Json = {"name": wanted.name or "answer"}
        if wanted.description:
            schema["description"] = wanted.description
        if wanted.schema_json:
            schema["schema"] = valid_json(wanted.schema_json, "response_format")
        if wanted.strict is not None:
            schema["strict"] = wanted.strict
        found["json_schema"] = schema
    return found


def _reasoning(plan: ThinkingPlan, target: Target) -> Json:
    """Thinking plan in the parameters that the model accepts."""
    capabilities = target.capabilities
    switch = capabilities.thinking_switch
    if plan.kind == "default" or switch == "none":
        return {}
    if plan.kind == "off":
        # A known model that is off by itself is not told so: it may not know the word.
        told = capabilities.thinking_default != "off" or capabilities.thinking == "unknown"
        return _OFF[switch] if told or not capabilities.thinking_tools else {}
    if plan.kind == "budget":
        return _budget(plan.budget_tokens, switch)
    effort: Json = {"reasoning_effort": plan.effort} if plan.effort else {}
    if switch == "reasoning_effort":
        return effort or {"reasoning_effort": capabilities.default_effort}
    return _ON[switch] | effort


def _budget(tokens: int, switch: str) -> Json:
    if switch == "enable_thinking":
        return {"enable_thinking": True, "thinking_budget": tokens}
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


_OFF: Mapping[str, Json] = {
    "reasoning_effort": {"reasoning_effort": "none"},
    "thinking": {"thinking": {"type": "disabled"}},
    "enable_thinking": {"enable_thinking": False},
}
_ON: Mapping[str, Json] = {
    "thinking": {"thinking": {"type": "enabled"}},
    "enable_thinking": {"enable_thinking": True},
}


def _renamed(found: Json, target: Target) -> Json:
    renames = target.channel.quirks.renames
    return {renames.get(name, name): value for name, value in found.items()}
