"""OperationsService, for operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.embeddings.v1.embedding_service_pb2 import CreateEmbeddingsRequest
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.admission.leases import LimitLeases
from services.common.contract.chat import SPEC
from services.common.contract.message_table import EnumWords, UntranslatableError
from services.config import ConfigError
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.embeddings.servicer import read_request
from services.errors import Failure, invalid
from services.operations.channel_control import ChannelControl
from services.operations.channel_tester import ChannelTester, tested_target, timeout_of
from services.operations.channels import list_channels
from services.operations.configuration_view import ConfigurationView
from services.operations.embedding_explainer import EmbeddingExplainer
from services.operations.explainer import Explainer, Session
from services.operations.limit_report import list_limits
from services.operations.live_calls import LiveCalls
from services.operations.load_report import LoadReport
from services.operations.operator_acts import OperatorActs, valid_reason
from services.providers.channel_failures import ChannelFailures
from services.rpc.call_context import Context, current_request_id

_POLICIES = EnumWords(chat.ParameterPolicy.DESCRIPTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsParts:
    """Parts that OperationsService asks."""

    explainer: Callable[[], Explainer]
    """Returns one for the current configuration."""
    embedding_explainer: Callable[[], EmbeddingExplainer]
    """Returns one for the current configuration."""
    failures: ChannelFailures
    control: ChannelControl
    acts: OperatorActs
    tester: ChannelTester
    calls: LiveCalls
    leases: LimitLeases
    load: LoadReport
    configuration: ConfigurationView
    reload: Callable[[], str]
    """Replaces the configuration, and returns what has changed as a diff. Raises ConfigError."""


class OperationsServicer(pb_grpc.OperationsServiceServicer):
    """Explains and aborts calls, tests and switches channels, and shows what operators watch."""

    def __init__(self, parts: OperationsParts) -> None:
        self._parts = parts

    async def ExplainChatCompletion(
        self, request: pb.ExplainChatCompletionRequest, context: Context
    ) -> pb.ExplainChatCompletionResponse:
        """Explain a call, without a request to any provider."""
        # Other words are refused by the validation.
        policy = cast("ParameterPolicy", _POLICIES.word(request.parameter_policy))
        session = Session(request.account, request.session_id)
        return self._parts.explainer().explain(_read_spec(request), policy, session)

    async def ExplainEmbeddings(
        self, request: pb.ExplainEmbeddingsRequest, context: Context
    ) -> pb.ExplainEmbeddingsResponse:
        """Explain a call for embeddings, without a request to any provider."""
        asked = CreateEmbeddingsRequest(
            spec=request.spec, parameter_policy=request.parameter_policy
        )
        return await self._parts.embedding_explainer().explain(read_request(asked))

    async def ListChannels(
        self, request: pb.ListChannelsRequest, context: Context
    ) -> pb.ListChannelsResponse:
        """Return the current status of channels."""
        now = self._parts.explainer()
        return pb.ListChannelsResponse(
            channels=list_channels(now.catalog, now.health, self._parts.failures, request.model)
        )

    async def DisableChannel(
        self, request: pb.DisableChannelRequest, context: Context
    ) -> pb.DisableChannelResponse:
        """Disable a channel in all processes."""
        disablement = await self._parts.control.disable(
            request, self._parts.explainer().catalog, context
        )
        return pb.DisableChannelResponse(disablement=disablement)

    async def EnableChannel(
        self, request: pb.EnableChannelRequest, context: Context
    ) -> pb.EnableChannelResponse:
        """Enable a channel in all processes."""
        await self._parts.control.enable(request.channel, context)
        return pb.EnableChannelResponse()

    async def TestChannel(
        self, request: pb.TestChannelRequest, context: Context
    ) -> pb.TestChannelResponse:
        """Send one small request to a channel."""
        now = self._parts.explainer()
        target, timeout_s = tested_target(request, now.catalog), timeout_of(request)
        await self._parts.acts.record_test(target, context)
        price = now.plans.prices.lookup(target.public_model)
        return await self._parts.tester.run(target, price, timeout_s, current_request_id())

    async def ListLiveCalls(
        self, request: pb.ListLiveCallsRequest, context: Context
    ) -> pb.ListLiveCallsResponse:
        """Return the calls in flight in this process."""
        return self._parts.calls.page(request)

    async def AbortCall(
        self, request: pb.AbortCallRequest, context: Context
    ) -> pb.AbortCallResponse:
        """Abort a call in flight in this process."""
        reason = valid_reason(request.reason)
        call = self._parts.calls.abort(request.call_id)
        await self._parts.acts.record_abort(call, reason, context)
        return pb.AbortCallResponse(call=call)

    async def ListLimits(
        self, request: pb.ListLimitsRequest, context: Context
    ) -> pb.ListLimitsResponse:
        """Return the limits with their current use."""
        return await list_limits(self._parts.explainer().plans, self._parts.leases)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """Return the load of this process."""
        return self._parts.load.get()

    async def GetConfiguration(
        self, request: pb.GetConfigurationRequest, context: Context
    ) -> pb.GetConfigurationResponse:
        """Return the configuration without secrets, and what a reload would change."""
        return self._parts.configuration.get()

    async def ReloadConfiguration(
        self, request: pb.ReloadConfigurationRequest, context: Context
    ) -> pb.ReloadConfigurationResponse:
        """Reload the configuration."""
        try:
            diff = self._parts.reload()
        except ConfigError as error:
            raise Failure(ErrorReason.INVALID_FIELD, str(error)) from None
        await self._parts.acts.record_reload(diff, context)
        return pb.ReloadConfigurationResponse()


def _read_spec(request: pb.ExplainChatCompletionRequest) -> ChatCompletionSpec:
    try:
        return SPEC.read(request.spec)
    except UntranslatableError as error:
        raise invalid(error.path, str(error)) from None
