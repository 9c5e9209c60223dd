"""Key lookup: asks the service whether a key is valid, without a call that costs anything."""

from __future__ import annotations

import grpc
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1.model_service_pb2_grpc import ModelServiceStub

from gateway.rpc.status_mapping import to_api_error
from services.common.call_names import REQUEST_ID_HEADER
from services.domain.error_reason import ErrorReason

LOOKUP_TIMEOUT_S = 4.0
"""Above the timeout of the service's own lookup in its store."""


class ServiceKeyLookup:
    """Asks for a model without a name: the service checks the key first, and then finds none."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ModelServiceStub(channel)

    async def __call__(self, key: str, request_id: str) -> bool:
        """Return whether the service accepted the key; False where it cannot say.

        Raises:
            ApiError: the key is not valid.
        """
        metadata = (("authorization", f"Bearer {key}"), (REQUEST_ID_HEADER, request_id))
        call = self._stub.GetModel(
            models.GetModelRequest(), metadata=metadata, timeout=LOOKUP_TIMEOUT_S
        )
        try:
            await call
        except grpc.aio.AioRpcError as failure:
            error = to_api_error(failure, request_id)
            if error.row.failed_auth:
                raise error from None
            return error.reason == ErrorReason.NOT_FOUND
        return True
