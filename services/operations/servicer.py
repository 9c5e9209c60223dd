"""The border of the operations."""

from __future__ import annotations

from collections.abc import Callable

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import error_reason_pb2 as reasons
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.config import ConfigError
from services.errors import Failure
from services.operations.channels import list_channels
from services.operations.explainer import Explainer
from services.rpc.failure_border import Context


class OperationsServicer(pb_grpc.OperationsServiceServicer):
    """Serves operators."""

    def __init__(self, explainer: Callable[[], Explainer], reload: Callable[[], None]) -> None:
        """`explainer` gives one by the configuration of the moment; `reload` replaces that."""
        self._explainer = explainer
        self._reload = reload

    async def ExplainChatCompletion(
        self, request: pb.ExplainChatCompletionRequest, context: Context
    ) -> pb.ExplainChatCompletionResponse:
        """What would become of a call. Nobody is asked."""
        strict = request.parameter_policy == chat.PARAMETER_POLICY_STRICT
        return self._explainer().explain(request.spec, strict=strict)

    async def ListChannels(
        self, request: pb.ListChannelsRequest, context: Context
    ) -> pb.ListChannelsResponse:
        """How the channels are doing at this moment."""
        now = self._explainer()
        return pb.ListChannelsResponse(
            channels=list_channels(now.catalog, now.health, request.model)
        )

    async def ReloadConfiguration(
        self, request: pb.ReloadConfigurationRequest, context: Context
    ) -> pb.ReloadConfigurationResponse:
        """Reads the configuration anew."""
        try:
            self._reload()
        except ConfigError as error:
            raise Failure(reasons.ERROR_REASON_INVALID_FIELD, str(error)) from None
        return pb.ReloadConfigurationResponse()
