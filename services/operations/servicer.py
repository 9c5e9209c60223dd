"""OperationsService, for operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.common.contract.chat import SPEC
from services.common.contract.message_table import EnumWords, UntranslatableError
from services.config import ConfigError
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.errors import Failure
from services.operations.channel_control import ChannelControl
from services.operations.channels import list_channels
from services.operations.configuration_view import ConfigurationView
from services.operations.explainer import Explainer, Session
from services.providers.channel_failures import ChannelFailures
from services.rpc.call_context import Context

_POLICIES = EnumWords(chat.ParameterPolicy.DESCRIPTOR)


class OperationsServicer(pb_grpc.OperationsServiceServicer):
    """Explains calls, lists channels and reloads the configuration."""

    def __init__(
        self,
        explainer: Callable[[], Explainer],
        reload: Callable[[], None],
        failures: ChannelFailures,
        control: ChannelControl,
        configuration: ConfigurationView,
    ) -> None:
        """`explainer` returns one for the current configuration; `reload` replaces it."""
        self._control = control
        self._configuration = configuration
        self._failures = failures
        self._explainer = explainer
        self._reload = reload

    async def ExplainChatCompletion(
        self, request: pb.ExplainChatCompletionRequest, context: Context
    ) -> pb.ExplainChatCompletionResponse:
        """Explain a call, without a request to any provider."""
        # Other words are refused by the validation.
        policy = cast("ParameterPolicy", _POLICIES.word(request.parameter_policy))
        session = Session(request.account, request.session_id)
        return self._explainer().explain(_read_spec(request), policy, session)

    async def ListChannels(
        self, request: pb.ListChannelsRequest, context: Context
    ) -> pb.ListChannelsResponse:
        """Return the current status of channels."""
        now = self._explainer()
        return pb.ListChannelsResponse(
            channels=list_channels(now.catalog, now.health, self._failures, request.model)
        )

    async def DisableChannel(
        self, request: pb.DisableChannelRequest, context: Context
    ) -> pb.DisableChannelResponse:
        """Disable a channel in all processes."""
        disablement = await self._control.disable(request, self._explainer().catalog, context)
        return pb.DisableChannelResponse(disablement=disablement)

    async def EnableChannel(
        self, request: pb.EnableChannelRequest, context: Context
    ) -> pb.EnableChannelResponse:
        """Enable a channel in all processes."""
        await self._control.enable(request.channel, context)
        return pb.EnableChannelResponse()

    async def GetConfiguration(
        self, request: pb.GetConfigurationRequest, context: Context
    ) -> pb.GetConfigurationResponse:
        """Return the configuration without secrets, and what a reload would change."""
        return self._configuration.get()

    async def ReloadConfiguration(
        self, request: pb.ReloadConfigurationRequest, context: Context
    ) -> pb.ReloadConfigurationResponse:
        """Reload the configuration."""
        diff = self._configuration.get().diff
        try:
            self._reload()
        except ConfigError as error:
            raise Failure(ErrorReason.INVALID_FIELD, str(error)) from None
        await self._control.record_reload(diff, context)
        return pb.ReloadConfigurationResponse()


def _read_spec(request: pb.ExplainChatCompletionRequest) -> ChatCompletionSpec:
    try:
        return SPEC.read(request.spec)
    except UntranslatableError as error:
        raise Failure(ErrorReason.INVALID_FIELD, str(error), param=error.path) from None
