"""Pass-through of fields that are unknown to the contract, by the rule of the channel.

See `services.providers.openai.pass_through`, whose rule it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from services.common.json_errors import NOT_JSON
from services.domain.embeddings import EmbeddingSpec
from services.errors import invalid
from services.providers.base import Notes, Target
from services.providers.openai.harmless_fields import folded
from services.providers.openai.pass_through import NEVER, passes_any, passes_harmless, shown_name
from services.providers.translate.unknown_members import members_of

_ANSWER_FORM = (
    "encoding_format output_dtype embedding_types output_dimension output_dimensionality"
    " embedding_dimension texts images inputs input_text content requests instances parameters"
    " embed_content_config single_embedding_params"
)
"""Fields that decide on the form of the answer, which is ours to choose, or that are the input."""

_HELD_BACK = frozenset(
    folded(name) for name in (*NEVER, *_ANSWER_FORM.split(), *EmbeddingSpec.__struct_fields__)
)
_PLAIN = (str, int, float, bool)


def is_dropped(name: str, target: Target) -> bool:
    """Whether a target's model or channel refuses a parameter."""
    return name in target.capabilities.rejects or name in target.channel.quirks.drops


def extra_fields(
    spec: EmbeddingSpec, target: Target, notes: Notes, *, harmless: Collection[str]
) -> Mapping[str, object]:
    """Return the unknown fields to send, by the provider's names.

    `harmless` are the names that the channel passes by default, where their values are plain. Each
    field that is left out gets a note. Raises INVALID_FIELD unless the fields are a JSON object.
    """
    if not spec.extra_json:
        return {}
    found = members_of(spec.extra_json)
    if found is None:
        raise invalid("extra_json", "The additional fields are not a JSON object.")
    renames, allowed = target.channel.quirks.renames, target.channel.pass_through
    sent: dict[str, object] = {}
    for name, raw in found.items():
        is_harmless = name in harmless and _is_plain(raw)
        passes = passes_any(allowed, name) or (is_harmless and passes_harmless(allowed))
        never = folded(name) in _HELD_BACK and name not in harmless
        if passes and not never and not is_dropped(name, target):
            sent[renames.get(name, name)] = raw
        else:
            shown = shown_name(name)
            notes.dropped(shown, f"`{shown}` is not passed on to the provider.")
    return sent


def _is_plain(raw: msgspec.Raw) -> bool:
    try:
        return isinstance(msgspec.json.decode(raw), _PLAIN)
    except NOT_JSON:
        return False
