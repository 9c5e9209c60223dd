"""Pass-through of request fields that are unknown to the contract.

A channel passes all of them, none, or those that it names. Some are never passed: fields that
choose another model, price or place of storage, or that control a gateway behind this one. Names
of the contract are never passed either, because they would bypass its limits.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.providers.base import Notes, Target

NEVER: frozenset[str] = frozenset(
    name
    for names in (
        # Another model, another provider, another route.
        "model models route routes provider providers plugins transforms preset fallbacks",
        "fallback_models deployment deployment_id engine custom_llm_provider",
        # Another price, or a limit that is none.
        "service_tier max_tokens max_completion_tokens max_output_tokens max_new_tokens",
        "max_length num_predict n_predict num_ctx n best_of web_search_options usage speed",
        # What is kept, and where.
        "store background metadata conversation previous_response_id",
        # The form of the answer, which is ours to choose.
        "stream stream_options messages prompt input functions function_call",
        # Who else hears of it.
        "webhook webhooks webhook_url webhook_secret callback callback_url notify_url",
        # Instructions to clients and to other gateways; the last overwrite objects in JavaScript.
        "api_base base_url api_key api_version api_type organization project headers",
        "extra_headers extra_body extra_query default_headers timeout max_retries num_retries",
        "mock_response user_config litellm_params guardrails callbacks debug",
        "__proto__ constructor prototype",
    )
    for name in names.split()
)
"""Names that are never passed, besides those of the contract."""

ON_REQUEST: frozenset[str] = frozenset({"service_tier", "metadata"})
"""Fields of the contract that are passed only if the channel's `pass_through` names them."""

_NONE: frozenset[str] = frozenset()
_CONTRACT: frozenset[str] = frozenset(pb.ChatCompletionSpec.DESCRIPTOR.fields_by_name)


def passed(
    spec: pb.ChatCompletionSpec, body: Mapping[str, object], target: Target, notes: Notes
) -> dict[str, object]:
    """Unknown fields to add to `body`, by the provider's names.

    None of them is in `body` already. Each field that is left out gets a note. Raises INVALID_FIELD
    unless they are a JSON object.
    """
    if not spec.extra_json:
        return {}
    try:
        found = msgspec.json.decode(spec.extra_json, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        message = "The additional fields are not a JSON object."
        raise Failure(reasons.ERROR_REASON_INVALID_FIELD, message, param="extra_json") from error
    quirks = target.channel.quirks
    sent: dict[str, object] = {}
    for name, value in found.items():
        provider_name = quirks.renames.get(name, name)
        if bytes(value) == b"null":
            continue  # Null means absent.
        if _may_pass(name, target) and not _known(provider_name) and provider_name not in body:
            sent[provider_name] = value
        else:
            notes.dropped(_shown(name), f"`{_shown(name)}` is not passed on to the provider.")
    return sent


def on_request(spec: pb.ChatCompletionSpec, target: Target, notes: Notes) -> frozenset[str]:
    """Fields of `ON_REQUEST` that are left out of this request, each with a note."""
    if not spec.metadata and not spec.service_tier:
        return _NONE  # As nearly always.
    allowed = target.channel.pass_through
    held = ON_REQUEST if isinstance(allowed, bool) else ON_REQUEST.difference(allowed)
    if "metadata" in held and spec.metadata:
        notes.dropped("metadata", "This channel does not pass on `metadata`.")
    if "service_tier" in held and spec.service_tier not in {"", "auto"}:
        notes.dropped("service_tier", "This channel does not pass on `service_tier`.")
    return held


def _may_pass(name: str, target: Target) -> bool:
    allowed = target.channel.pass_through
    if name in target.channel.quirks.drops or _known(name):
        return False
    return allowed if isinstance(allowed, bool) else name in allowed


def _known(name: str) -> bool:
    """Whether the name is on a list. Case is ignored, as servers written in Go ignore it."""
    folded = name.casefold()
    return folded in NEVER or folded in _CONTRACT


def _shown(name: str) -> str:
    """Name for a note. `extra_json` if the caller's name is long or not an identifier."""
    return name if name.isidentifier() and name.isascii() and len(name) <= 64 else "extra_json"
