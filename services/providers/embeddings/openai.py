"""OpenAI's `POST /embeddings`, which most other providers also speak."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from services.domain.embeddings import EmbeddingSpec
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.embeddings.base import (
    VectorsAnswer,
    checked_entries,
    embedding_request,
    limits_of,
    plausible_tokens,
    read_answer,
    read_usage,
)
from services.providers.embeddings.dimensions import dimensions_parameter, sent_dimensions
from services.providers.embeddings.extra_fields import extra_fields, is_dropped
from services.providers.embeddings.texts import no_token_ids
from services.providers.embeddings.vectors import read_vectors
from services.providers.openai.pass_through import passes_any, passes_harmless
from services.providers.unusable_answers import unreadable
from services.providers.usual_api import UsualApi

HARMLESS = frozenset(
    {"normalize", "task", "task_type", "truncate", "truncate_prompt_tokens", "truncation"}
)
"""Fields of Voyage, Jina, vLLM and others that change neither price, model, storage nor any
address."""


class _Item(msgspec.Struct):
    embedding: Raw = Raw()
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: object = None
    total_tokens: object = None


class _Answer(msgspec.Struct):
    data: list[_Item] | None = None
    usage: Raw = Raw()


_ANSWER = msgspec.json.Decoder(_Answer)


class OpenAiEmbeddings(UsualApi):
    """See `services.providers.embeddings.base.EmbeddingDialect`."""

    def encode(
        self, spec: EmbeddingSpec, target: Target, notes: Notes, *, as_numbers: bool
    ) -> UpstreamRequest:
        """Encode `spec`. Vectors come as base64 where the model's row says so."""
        limits = limits_of(target)
        if spec.token_ids and not limits.token_ids:
            raise no_token_ids()
        body: dict[str, object] = {"model": target.model, "input": spec.texts or spec.token_ids}
        if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
            body[dimensions_parameter(target)] = dimensions
        if limits.base64 and not as_numbers:
            body["encoding_format"] = "base64"
        _add_hints(body, spec, target, notes)
        body = {**extra_fields(spec, target, notes, harmless=HARMLESS), **body}
        return embedding_request("/embeddings", body)

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer, whose vectors come in any order if they have an index."""
        answer = read_answer(body, _ANSWER)
        ordered = _in_order(checked_entries(answer.data, body, spec))
        return VectorsAnswer(read_vectors(ordered, as_numbers=as_numbers), _tokens(answer.usage))


def _add_hints(body: dict[str, object], spec: EmbeddingSpec, target: Target, notes: Notes) -> None:
    renames, allowed = target.channel.quirks.renames, target.channel.pass_through
    passes = passes_harmless(allowed) or passes_any(allowed, "input_type")
    hints = {"user": (spec.user, True), "input_type": (spec.input_type, passes)}
    for name, (value, is_passed) in hints.items():
        if value and is_passed and not is_dropped(name, target):
            body[renames.get(name, name)] = value
        elif value:
            notes.dropped(name, f"`{name}` is not passed on to the provider.")


def _in_order(items: Sequence[_Item]) -> Sequence[Raw]:
    """Return the vectors in the order of the entries. Raises UPSTREAM_BAD_RESPONSE."""
    if all(item.index is None for item in items):
        return [item.embedding for item in items]
    by_index = {item.index: item.embedding for item in items}
    if by_index.keys() != set(range(len(items))):
        raise unreadable()
    return [by_index[index] for index in range(len(items))]


def _tokens(raw: Raw) -> int:
    usage = read_usage(raw, _Usage)
    return plausible_tokens(usage.prompt_tokens, usage.total_tokens) if usage is not None else 0
