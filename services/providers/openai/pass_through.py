"""Pass-through of request fields that are unknown to the contract.

A channel passes those that are known to be harmless, all, none, or those that it names, among which
`harmless` stands for the first. Some are never passed: fields that choose another model, price or
place of storage, or that control a gateway behind this one. Names of the contract are never passed
either, because they would bypass its limits. Both are compared without case, `_` and `-`, which
some servers ignore, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.common.json_errors import NOT_JSON
from services.config import PassThrough
from services.domain.spec import ChatCompletionSpec
from services.errors import invalid
from services.providers.base import Notes, Target
from services.providers.openai.harmless_fields import folded, harmless, member_kinds
from services.providers.translate.unknown_members import member_path, members_of

NEVER: frozenset[str] = frozenset(
    name
    for names in (
        # Another model, another provider, another route.
        "model models route routes provider providers plugins transforms preset fallbacks",
        "fallback_models deployment deployment_id engine custom_llm_provider",
        # Another price, or a limit that is none.
        "service_tier max_tokens max_completion_tokens max_output_tokens max_new_tokens",
        "max_length num_predict n_predict num_ctx n best_of web_search_options usage speed",
        # Storage, and its place.
        "store background metadata conversation previous_response_id",
        # The form of the answer, which is ours to choose.
        "stream stream_options messages prompt input functions function_call",
        # Addresses that are notified.
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

NAMED_ONLY: frozenset[str] = frozenset({"store", "web_search_options"})
"""Names in `NEVER` that a channel passes if its `pass_through` names them: its operator then pays
for searches, and knows what the provider keeps."""

BILLED: frozenset[str] = frozenset({"web_search_options"})
"""Those of `NAMED_ONLY` that the provider bills besides tokens."""

HARMLESS = "harmless"
"""`pass_through` of channels that pass the fields of the shipped table, or a name in its list."""

STREAM_OPTIONS = "stream_options"
"""Field of which only unknown members are among the unknown fields: the rest is a dialect's own."""

_CACHE_KEY = "prompt_cache_key"
_NONE: frozenset[str] = frozenset()
_HELD_BACK: frozenset[str] = frozenset(
    folded(name) for name in (*NEVER, *ChatCompletionSpec.__struct_fields__)
)


def extra_fields(
    spec: ChatCompletionSpec, body: Mapping[str, object], target: Target, notes: Notes
) -> dict[str, object]:
    """Unknown fields to add to `body`, by the provider's names, of a spec that has some.

    None of them is in `body` already. Each field that is left out gets a note. Raises INVALID_FIELD
    unless they are a JSON object.
    """
    found = members_of(spec.extra_json)
    if found is None:
        raise invalid("extra_json", "The additional fields are not a JSON object.")
    renames, allowed = target.channel.quirks.renames, target.channel.pass_through
    taken = {folded(name) for name in body}
    sent: dict[str, object] = {}
    held: list[str] = []
    for name, raw in found.items():
        if name == STREAM_OPTIONS:
            continue  # See `stream_options`.
        provider_name = renames.get(name, name)
        if _is_never_sent(name, provider_name, target) or folded(provider_name) in taken:
            held.append(name)
        elif passes_any(allowed, name):
            sent[provider_name] = raw
        elif not passes_harmless(allowed):
            held.append(name)
        elif (value := harmless(name, _decoded(raw), held)) is not None:
            # Numbers stay as they are written. Objects are sent as they were understood here.
            sent[provider_name] = value if isinstance(value, dict | list) else raw
    for name in held:
        notes.dropped(shown_name(name), f"`{shown_name(name)}` is not passed on to the provider.")
    return sent


def stream_options(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, streamed: bool
) -> dict[str, object]:
    """Unknown members of `stream_options` to send with a stream, by the rule of other members."""
    if STREAM_OPTIONS.encode() not in spec.extra_json:
        return {}  # The usual case.
    found = members_of(spec.extra_json)
    raw = (found or {}).get(STREAM_OPTIONS)
    members = members_of(raw) if raw is not None else {}
    if members is None:
        notes.dropped(STREAM_OPTIONS, "It is not an object.")
        return {}
    allowed, kinds = target.channel.pass_through, member_kinds(STREAM_OPTIONS)
    sent: dict[str, object] = {}
    for name, value in members.items():
        harmless_here = passes_harmless(allowed) and folded(name) in kinds
        known = name in target.channel.quirks.drops or name == "include_usage"
        if streamed and not known and (passes_any(allowed, name) or harmless_here):
            sent[name] = value
        else:
            shown = member_path(STREAM_OPTIONS, name)
            notes.dropped(shown, f"`{shown}` is not passed on to the provider.")
    return sent


def on_request(spec: ChatCompletionSpec, target: Target, notes: Notes) -> frozenset[str]:
    """Fields of the contract that are left out of this request, each with a note.

    They are those of `ON_REQUEST`, and the cache key of channels that pass on no harmless field.
    """
    if not spec.metadata and not spec.service_tier and not spec.prompt_cache_key:
        return _NONE  # The usual case.
    allowed = target.channel.pass_through
    held = ON_REQUEST.difference(allowed) if isinstance(allowed, tuple) else ON_REQUEST
    if "metadata" in held and spec.metadata:
        notes.dropped("metadata", "This channel does not pass on `metadata`.")
    if "service_tier" in held and spec.service_tier not in {"", "auto"}:
        notes.dropped("service_tier", "This channel does not pass on `service_tier`.")
    if spec.prompt_cache_key and not (passes_harmless(allowed) or passes_any(allowed, _CACHE_KEY)):
        notes.dropped(_CACHE_KEY, f"This channel does not pass on `{_CACHE_KEY}`.")
        held |= {_CACHE_KEY}
    return held


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except NOT_JSON as error:
        raise invalid("extra_json", "An additional field cannot be read.") from error


def passes_any(allowed: PassThrough, name: str) -> bool:
    """Whether a channel passes every value of a field or member."""
    return name in allowed if isinstance(allowed, tuple) else allowed is True


def passes_harmless(allowed: PassThrough) -> bool:
    """Whether a channel passes what the shipped table lets pass."""
    return HARMLESS in allowed if isinstance(allowed, tuple) else allowed == HARMLESS


def _is_never_sent(name: str, provider_name: str, target: Target) -> bool:
    allowed = target.channel.pass_through
    if name in target.channel.quirks.drops:
        return True
    if name in NAMED_ONLY and isinstance(allowed, tuple) and name in allowed:
        return name in BILLED and not target.sends_provider_tools
    return _known(name) or _known(provider_name)


def _known(name: str) -> bool:
    """Whether a field is on a list of those that are never passed."""
    return folded(name) in _HELD_BACK


def shown_name(name: str) -> str:
    """Name for a note. `extra_json` if the caller's name is long or not an identifier."""
    readable = all(part.isidentifier() for part in name.split("."))
    return name if readable and name.isascii() and len(name) <= 64 else "extra_json"
