"""Embeddings: `pomogator.embeddings.v1`."""

from __future__ import annotations

from pomogator.embeddings.v1 import embedding_service_pb2 as pb

from services.common.contract.chat import NOTE, USAGE
from services.common.contract.message_table import MessageTable, Translation
from services.domain.embeddings import Embedding, EmbeddingRequest, Embeddings, EmbeddingSpec


def _fill_token_ids(ids: list[int], message: pb.TokenIds) -> None:
    message.ids.extend(ids)


_SPEC = MessageTable(
    EmbeddingSpec,
    pb.EmbeddingSpec,
    {"token_ids": Translation(lambda message: list(message.ids), _fill_token_ids)},
)
_REQUEST = MessageTable(EmbeddingRequest, pb.CreateEmbeddingsRequest, {"spec": _SPEC.translation})
_EMBEDDINGS = MessageTable(
    Embeddings,
    pb.CreateEmbeddingsResponse,
    {
        "embeddings": MessageTable(Embedding, pb.Embedding).translation,
        "usage": USAGE.translation,
        "notes": NOTE.translation,
    },
)


def read_embedding_request(message: pb.CreateEmbeddingsRequest) -> EmbeddingRequest:
    """Return the request. Raises UntranslatableError."""
    return _REQUEST.read(message)


def to_embedding_request(request: EmbeddingRequest) -> pb.CreateEmbeddingsRequest:
    """Return the request as a message."""
    message = pb.CreateEmbeddingsRequest()
    _REQUEST.fill(request, message)
    return message


def read_embeddings(message: pb.CreateEmbeddingsResponse) -> Embeddings:
    """Return the answer."""
    return _EMBEDDINGS.read(message)


def to_embeddings_message(embeddings: Embeddings) -> pb.CreateEmbeddingsResponse:
    """Return the answer as a message."""
    message = pb.CreateEmbeddingsResponse()
    _EMBEDDINGS.fill(embeddings, message)
    return message
