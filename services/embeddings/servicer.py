"""The gRPC method of embeddings: the border between the contract and the domain."""

from __future__ import annotations

from pomogator.embeddings.v1 import embedding_service_pb2 as pb
from pomogator.embeddings.v1 import embedding_service_pb2_grpc as pb_grpc

from services.common.contract.embeddings import read_embedding_request, to_embeddings_message
from services.common.contract.message_table import UntranslatableError
from services.common.off_loop import off_loop
from services.completions.servicer import options_of
from services.domain.embeddings import EmbeddingRequest
from services.domain.error_reason import ErrorReason
from services.embeddings.embedding_service import EmbeddingService
from services.errors import Failure
from services.rpc.call_context import Context, current_request_bytes, unknown_request_id
from services.rpc.large_requests import OBJECTS_PER_BYTE


class EmbeddingServicer(pb_grpc.EmbeddingServiceServicer):
    """Translates requests and answers."""

    def __init__(self, embeddings: EmbeddingService) -> None:
        self._embeddings = embeddings

    async def CreateEmbeddings(
        self, request: pb.CreateEmbeddingsRequest, context: Context
    ) -> pb.CreateEmbeddingsResponse:
        """Answer with all vectors."""
        headers = dict(unknown_request_id(context))
        size = current_request_bytes() * OBJECTS_PER_BYTE
        asked = await off_loop(size, read_request, request)
        options, interrupt = options_of(context)
        embeddings = await self._embeddings.create(asked, options, headers, interrupt)
        if headers:
            await context.send_initial_metadata(tuple(headers.items()))
        return to_embeddings_message(embeddings)


def read_request(message: pb.CreateEmbeddingsRequest) -> EmbeddingRequest:
    """Return the request. Raises Failure."""
    try:
        return read_embedding_request(message)
    except UntranslatableError as error:
        param = error.path.removeprefix("spec.")
        raise Failure(ErrorReason.INVALID_FIELD, str(error), param=param) from None
