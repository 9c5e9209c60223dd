"""The pass over a request: messages and schemas as one target accepts them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.capabilities import ANY_IDS
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.translate.history import (
    instructions,
    reasoning,
    schemas,
    signatures,
    tool_call_ids,
    tool_results,
    tool_schemas,
    turns,
)


class LegalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request whose messages and schemas the target accepts."""

    spec: ChatCompletionSpec
    """The request."""
    original_ids: Mapping[str, str]
    """The caller's ID of each tool call that has another in `spec`, by the latter."""


def made_legal(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, plain_reasoning: bool = True
) -> LegalRequest:
    """Return `spec` in a form that the target accepts.

    `plain_reasoning`: whether the dialect has a form for earlier reasoning as plain text.
    An object that needs no change is the same object. Raises UNSUPPORTED_FEATURE in strict mode
    where something is lost, and INVALID_FIELD for a schema that cannot be read.
    """
    capabilities, messages = target.capabilities, spec.messages
    originals: Mapping[str, str] = {}
    if not plain_reasoning or not reasoning.takes_text(target):
        reasoning.note_unsent(messages, notes)
    if capabilities.tool_results != "any":
        messages = tool_results.paired(messages, capabilities.tool_results, notes)
    if capabilities.tool_call_ids != ANY_IDS:
        messages, originals = tool_call_ids.legal(messages, capabilities.tool_call_ids, notes)
    if capabilities.late_instructions != "any":
        messages = instructions.placed(messages, capabilities.late_instructions, notes)
    if capabilities.turns != "any" or not capabilities.user_after_tool:
        messages = turns.ordered(messages, capabilities, notes)
    if capabilities.thought_signatures:
        messages = signatures.signed(messages, notes)
    if messages is not spec.messages:
        spec = msgspec.structs.replace(spec, messages=messages)
    if spec.tools:
        spec = tool_schemas.flattened(spec, capabilities.tool_schema_rejects, notes)
    if spec.tools or spec.response_format is not None:
        spec = schemas.fitted(spec, capabilities, notes)
    return LegalRequest(spec=spec, original_ids=originals)
