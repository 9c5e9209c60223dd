"""Encoder of a spec as the body of `POST /messages`.

Only keys named in this package are sent: the API refuses any other ("Extra inputs are not
permitted"), and unknown fields could change the price or the data that is stored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import msgspec

from services.domain.spec import ChatCompletionSpec, ResponseFormat
from services.providers.anthropic.betas import beta_headers, context_management
from services.providers.anthropic.cache_marks import MARKS_MAX, drop_excess
from services.providers.anthropic.messages import Conversation, conversation
from services.providers.anthropic.own_members import unsent_paths
from services.providers.anthropic.parts import Json
from services.providers.anthropic.prefill import without_marks
from services.providers.anthropic.tools import (
    can_force,
    forcing_hint,
    knows_tool,
    tool_choice,
    tool_definitions,
)
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.translate.features import (
    forces_tool,
    note_summary,
    require,
    require_features,
)
from services.providers.translate.history import reasoning
from services.providers.translate.history.legal import made_legal
from services.providers.translate.other_types import without_foreign_tools
from services.providers.translate.output_limits import default_limit
from services.providers.translate.parameters import accepted
from services.providers.translate.raw_json import raw_object
from services.providers.translate.thinking import ThinkingPlan, plan
from services.providers.translate.unknown_members import drop_members, members_of, unknown_paths
from services.providers.translate.unseen_reasoning import hidden_tokens

NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
    "user": "user",
    "service_tier": "service_tier",
    "parallel_tool_calls": "parallel_tool_calls",
}
"""The API's parameter names by the contract's. The last three take another form in the body."""

SERVICE_TIERS: Mapping[str, str] = {
    "auto": "auto",
    "priority": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}
"""The API's service tiers by the contract's and its own names."""

USER_MAX = 256
"""Maximum length of `metadata.user_id` in characters."""

UNKNOWN_MAX = 32
"""Maximum number of unsent fields that get a note each."""

JSON_HINT = "Answer with one JSON object and nothing else: no prose, no code fence."
"""Instruction that replaces `response_format` `json_object`, which the API lacks."""

# No two pieces can match the same characters: what a caller sends takes linear time.
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]*[^\s@.]\.[^\s@.]+|\+?[\d\s().-]{7,}")


def encode(spec: ChatCompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """Encode `spec` as a request.

    Raises Failure: UNSUPPORTED_FEATURE, INVALID_FIELD, INVALID_IMAGE.
    """
    if spec.tools:
        spec = without_foreign_tools(spec, knows_tool(target), notes)
    require_features(spec, target)
    note_summary(spec, notes)
    require(not spec.other_reasoning_effort, "reasoning_effort", "this effort")
    spec = without_marks(spec)
    unknown = unknown_paths(spec)
    require("thinking.type" not in unknown, "thinking.type", "this mode of reasoning")
    if spec.response_format is not None and spec.response_format.other_json:
        require(False, "response_format", "answers of this format")
    managed = context_management(spec)
    _drop_unknown_fields(spec, notes, sent=managed)
    spec = _with_schema(spec, target, notes)
    if unknown:
        # One of them may have become a schema.
        drop_members(unsent_paths(spec), notes)
    legal = made_legal(spec, target, notes, plain_reasoning=False)
    spec = legal.spec
    messages = conversation(legal, target, notes)
    thinking = plan(spec, target, notes, disabled_reason=_thinking_refusal(spec, messages, target))
    parameters = accepted(spec, NAMES, target, notes, thinking=thinking.active)
    hints = _hints(spec, target, notes, thinking)
    tools = _tools(
        spec, messages, target, notes, parameters.pop("parallel_tool_calls", None), thinking
    )
    drop_excess(
        [*cast("list[Json]", tools.get("tools", [])), *messages.system],
        (block for turn in messages.turns for block in turn.content),
        notes,
        marks_max=MARKS_MAX - bool(spec.cache_control_json),
    )
    # The API requires a limit.
    limit = thinking.max_tokens or default_limit(target.capabilities, thinking.budget_tokens)
    body: Json = {
        "model": target.model,
        "max_tokens": limit,
        **_system([*messages.system, *hints]),
        "messages": [{"role": turn.role, "content": turn.content} for turn in messages.turns],
        **_user(parameters.pop("user", None), notes),
        **_service_tier(parameters.pop("service_tier", None), notes),
        **tools,
        **_thinking(spec, target, thinking),
        **_stop(parameters.pop("stop_sequences", None), notes),
        **parameters,
        **managed,
        "stream": True,
    }
    if spec.cache_control_json:
        body["cache_control"] = raw_object(spec.cache_control_json, "cache_control")
    version = target.channel.quirks.anthropic_version
    return UpstreamRequest(
        path="/messages",
        body=msgspec.json.encode(body),
        streamed=True,
        headers=beta_headers(spec, notes) | ({"anthropic-version": version} if version else {}),
        thinking_tokens=hidden_tokens(spec, thinking, target.capabilities),
    )


def _drop_unknown_fields(spec: ChatCompletionSpec, notes: Notes, *, sent: Collection[str]) -> None:
    if not spec.extra_json:
        return
    fields = raw_object(spec.extra_json, "extra_json")
    found = msgspec.json.decode(fields, type=dict[str, msgspec.Raw])
    for count, name in enumerate([name for name in found if name not in sent]):
        if count == UNKNOWN_MAX:
            notes.dropped("extra_json", "The provider has no other unknown fields either.")
            return
        notes.dropped(name, f"The provider has no `{name}`.")


def _with_schema(spec: ChatCompletionSpec, target: Target, notes: Notes) -> ChatCompletionSpec:
    """Return the spec with a schema beside `json_object` as that of `json_schema`, if it can be."""
    form = spec.response_format
    if form is None or form.type != "json_object" or not form.extra_json:
        return spec
    members = members_of(form.extra_json) or {}
    schema = bytes(members.pop("schema", b""))
    if not schema.startswith(b"{") or not target.capabilities.structured_output:
        return spec
    notes.mapped("response_format", "The schema beside `json_object` is sent as a `json_schema`.")
    held = ResponseFormat(
        type="json_schema",
        name="answer",
        schema_json=schema,
        extra_json=msgspec.json.encode(members) if members else b"",
    )
    return msgspec.structs.replace(spec, response_format=held)


def _thinking_refusal(spec: ChatCompletionSpec, messages: Conversation, target: Target) -> str:
    """Reason for which the API would refuse thinking in this conversation. Empty: none."""
    if messages.is_prefilled:
        return "A model does not reason when the beginning of its answer is given."
    return reasoning.refusal(spec, target, messages.reasoned.__contains__)


def _hints(
    spec: ChatCompletionSpec, target: Target, notes: Notes, thinking: ThinkingPlan
) -> list[str]:
    """Instructions that replace features that the API or the model lacks."""
    hints = []
    if spec.response_format is not None and spec.response_format.type == "json_object":
        notes.mapped("response_format", "The model is told to answer with one JSON object.")
        hints.append(JSON_HINT)
    if spec.tools and forces_tool(spec) and not can_force(target, thinking=thinking.active):
        hints.append(forcing_hint(spec))
    return hints


def _system(parts: Sequence[Json | str]) -> Json:
    blocks = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"system": blocks} if blocks else {}


def _user(user: object, notes: Notes) -> Json:
    """`metadata` with the user ID. Drops personal data, which the API refuses."""
    if not isinstance(user, str):
        return {}
    if _PERSONAL.fullmatch(user.strip()):
        notes.dropped("user", "The provider takes no e-mail addresses and phone numbers.")
        return {}
    if len(user) > USER_MAX:
        notes.dropped("user", f"The provider takes at most {USER_MAX} characters.")
        return {}
    return {"metadata": {"user_id": user}}


def _service_tier(tier: object, notes: Notes) -> Json:
    if not isinstance(tier, str):
        return {}
    theirs = SERVICE_TIERS.get(tier)
    if theirs is None:
        notes.dropped("service_tier", "The provider has no such tier.")
        return {}
    if theirs != tier:
        notes.mapped("service_tier", f"The provider calls it `{theirs}`.")
    return {"service_tier": theirs}


def _stop(sequences: object, notes: Notes) -> Json:
    """Stop sequences without those of white space alone, which the API refuses."""
    if not isinstance(sequences, list):
        return {}
    kept = [sequence for sequence in sequences if sequence.strip()]
    if len(kept) < len(sequences):
        notes.dropped("stop", "The provider takes no stop sequences of white space.")
    return {"stop_sequences": kept} if kept else {}


def _tools(
    spec: ChatCompletionSpec,
    messages: Conversation,
    target: Target,
    notes: Notes,
    parallel: object,
    thinking: ThinkingPlan,
) -> Json:
    definitions = tool_definitions(spec, messages.called_tools, target, notes)
    if not definitions:
        return {}
    choice = tool_choice(spec, target, notes, thinking=thinking.active)
    if parallel is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return {"tools": definitions, **({"tool_choice": choice} if choice else {})}


def _thinking(spec: ChatCompletionSpec, target: Target, thinking: ThinkingPlan) -> Json:
    """`thinking` and `output_config`, which holds the effort and the answer's form."""
    capabilities = target.capabilities
    fields: Json = {}
    match thinking.kind:
        case "budget":
            fields = {"type": "enabled", "budget_tokens": thinking.budget_tokens}
        case "adaptive":
            fields = {"type": "adaptive"}
        case "off":
            return {"thinking": {"type": "disabled"}, **_output(spec, "")}
    if fields and capabilities.thinking_display:
        is_excluded = spec.thinking is not None and spec.thinking.excluded
        fields["display"] = "omitted" if is_excluded else "summarized"
    return {**({"thinking": fields} if fields else {}), **_output(spec, thinking.effort)}


def _output(spec: ChatCompletionSpec, effort: str) -> Json:
    config: Json = {"effort": effort} if effort else {}
    wanted = spec.response_format
    if wanted is not None and wanted.type == "json_schema":
        require(bool(wanted.schema_json), "response_format", "answers held to no schema")
        config["format"] = {"type": "json_schema", "schema": _described_schema(wanted)}
    return {"output_config": config} if config else {}


def _described_schema(wanted: ResponseFormat) -> object:
    """Schema of the answer. The format's description begins its own: the API has no other place."""
    schema = raw_object(wanted.schema_json, "response_format")
    if not wanted.description:
        return schema
    members = msgspec.json.decode(schema, type=dict[str, object])
    own = members.get("description")
    said = f"{wanted.description} {own}" if isinstance(own, str) else wanted.description
    return {**members, "description": said}
