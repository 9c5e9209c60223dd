"""Amazon Bedrock's `InvokeModel` for embeddings, with an API key of Bedrock as bearer token.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html. Each family of models
has a form of its own, which the model's row of the capability table names. Answers of Cohere's
models report no tokens in their body: they are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Raw

from services.domain.embeddings import EmbeddingSpec
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.embeddings.base import (
    VectorsAnswer,
    checked_entries,
    embedding_request,
    limits_of,
    plausible_tokens,
    read_answer,
)
from services.providers.embeddings.cohere import DEFAULT_INPUT_TYPE, INPUT_TYPES
from services.providers.embeddings.cohere import HARMLESS as HARMLESS_OF_COHERE
from services.providers.embeddings.dimensions import sent_dimensions
from services.providers.embeddings.extra_fields import extra_fields
from services.providers.embeddings.texts import input_type, require_texts
from services.providers.embeddings.vectors import read_vectors
from services.providers.usual_api import UsualApi

PURPOSES: Mapping[str, str] = {
    "document": "GENERIC_INDEX",
    "search_document": "GENERIC_INDEX",
    "query": "GENERIC_RETRIEVAL",
    "search_query": "GENERIC_RETRIEVAL",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""Input types of other providers, in the words of Amazon Nova."""

_NO_FORM = (
    "The form of this model's requests is not known: its row of `[[models]]` needs "
    '`embeddings = { request_form = "…" }`.'
)


class _Listed(msgspec.Struct):
    embedding: Raw = Raw()


class _Answer(msgspec.Struct):
    """An answer in any of the forms."""

    embedding: Raw = Raw()
    embeddings: Raw = Raw()
    tokens: object = msgspec.field(name="inputTextTokenCount", default=None)


class _ByType(msgspec.Struct):
    float: list[Raw] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)

_Body = dict[str, object]


class _Form(NamedTuple):
    """Form of the requests of a family of models."""

    body: Callable[[EmbeddingSpec, Target, Notes], _Body]
    harmless: frozenset[str]
    """Fields that change neither price, model, storage nor any address."""


class BedrockEmbeddings(UsualApi):
    """See `services.providers.embeddings.base.EmbeddingDialect`."""

    def encode(
        self,
        spec: EmbeddingSpec,
        target: Target,
        notes: Notes,
        *,
        as_numbers: bool,  # noqa: ARG002 - numbers are what the API has in any case
    ) -> UpstreamRequest:
        """Encode `spec` in the form of the model."""
        form = _FORMS.get(limits_of(target).request_form)
        if form is None:
            raise Failure(ErrorReason.UNSUPPORTED_FEATURE, _NO_FORM, param="model")
        require_texts(spec, notes)
        extra = extra_fields(spec, target, notes, harmless=form.harmless)
        return embedding_request(
            f"/model/{quote(target.model, safe='')}/invoke",
            {**extra, **form.body(spec, target, notes)},
        )

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer."""
        answer = read_answer(body, _ANSWER)
        found = checked_entries(_vectors(answer), body, spec)
        tokens = plausible_tokens(answer.tokens)
        return VectorsAnswer(read_vectors(found, as_numbers=as_numbers), tokens)


def _titan(spec: EmbeddingSpec, target: Target, notes: Notes) -> _Body:
    """One text. The models have no input types."""
    if spec.input_type:
        notes.dropped("input_type", "The provider has no such parameter.")
    body: _Body = {"inputText": _only_text(spec)}
    if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
        body["dimensions"] = dimensions
    return body


def _cohere(spec: EmbeddingSpec, target: Target, notes: Notes) -> _Body:
    kind = input_type(spec, target, notes, INPUT_TYPES, DEFAULT_INPUT_TYPE)
    body: _Body = {"texts": spec.texts, "input_type": kind}
    if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
        body["output_dimension"] = dimensions
    return body


def _nova(spec: EmbeddingSpec, target: Target, notes: Notes) -> _Body:
    """One text. One that is too long is refused, as by the other providers."""
    params: _Body = {
        "embeddingPurpose": input_type(spec, target, notes, PURPOSES, "GENERIC_INDEX"),
        "text": {"value": _only_text(spec), "truncationMode": "NONE"},
    }
    if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
        params["embeddingDimension"] = dimensions
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": params}


_FORMS: Mapping[str, _Form] = {
    "titan": _Form(_titan, frozenset({"normalize"})),
    "cohere": _Form(_cohere, HARMLESS_OF_COHERE),
    "nova": _Form(_nova, frozenset()),
}


def _only_text(spec: EmbeddingSpec) -> str:
    """Return the text of a part. The rows of these models say `entries_max = 1`."""
    if len(spec.texts) != 1:
        message = "The provider takes one text a request: its row needs `entries_max = 1`."
        raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param="input")
    return spec.texts[0]


def _vectors(answer: _Answer) -> Sequence[Raw] | None:
    """Return the vectors of an answer. None: it has another form."""
    if bytes(answer.embedding):
        return [answer.embedding]
    if not (found := bytes(answer.embeddings)):
        return None
    try:
        if found.startswith(b"{"):
            return msgspec.json.decode(found, type=_ByType).float
        listed = msgspec.json.decode(found, type=list[Raw])
        if not any(bytes(each).startswith(b"{") for each in listed):
            return listed
        return [each.embedding for each in msgspec.json.decode(found, type=list[_Listed])]
    except (ValueError, RecursionError):
        return None
