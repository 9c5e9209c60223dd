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

read_embedding_request = _REQUEST.read
to_embedding_request = _REQUEST.to_message
read_embeddings = _EMBEDDINGS.read
to_embeddings_message = _EMBEDDINGS.to_message
