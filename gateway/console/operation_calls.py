"""Operation calls: requests of the console to OperationsService."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.embeddings.v1.embedding_service_pb2 import EmbeddingSpec
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from gateway.console.askers import TIMEOUT_S, OperatorAsker, ask
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

TEST_TIMEOUT_S = 30
"""How long a test of a channel may take."""

AFFINITIES: Mapping[int, str] = {
    pb.AFFINITY_SESSION: "affinity.session",
    pb.AFFINITY_CONVERSATION: "affinity.conversation",
    pb.AFFINITY_OFF: "affinity.off",
    pb.AFFINITY_NO_CHOICE: "affinity.no_choice",
    pb.AFFINITY_NO_CACHE_PRICE: "affinity.no_cache_price",
    pb.AFFINITY_SHORT_PROMPT: "affinity.short_prompt",
}
"""Names of texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedCall:
    """A call to explain."""

    model: str
    text: str
    account: str = ""
    """Account of the session."""
    session_id: str = ""


class LiveCallFilter(NamedTuple):
    """Calls in flight to look at. Empty fields select all."""

    account: str = ""
    key_id: str = ""
    model: str = ""
    channel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a call would be routed."""

    candidates: Sequence[pb.Candidate]
    """In the order in which they would be tried."""
    prompt_token_count: int
    max_token_count: int = 0
    """The most tokens of an answer, for a completion."""
    request_count: int = 0
    """Requests to the provider, for embeddings. 0: it is a completion."""
    hold_nano_usd: int
    affinity: str = ""
    """Name of the text that says by what the call is kept at its first candidate, or why not."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration without secrets."""

    running: str
    """The configuration in use, as JSON."""
    diff: str
    """Changes that a reload would make, as a unified diff."""
    problems: Sequence[str]
    """Reasons for which a reload would fail."""

    @property
    def digest(self) -> str:
        """Digest of the changes and problems that the page shows."""
        return hashlib.sha256("\n".join([self.diff, *self.problems]).encode()).hexdigest()


class OperationCalls:
    """Calls of OperationsService, over a channel that trusts its holder. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._operations = pb_grpc.OperationsServiceStub(channel)

    async def channels(self, asker: OperatorAsker) -> list[pb.ChannelStatus]:
        """Return the status of all channels."""
        request = pb.ListChannelsRequest()
        return list((await ask(self._operations.ListChannels, request, asker)).channels)

    async def disable_channel(
        self, asker: OperatorAsker, channel: str, reason: str, until_s: int | None
    ) -> None:
        """Disable a channel until a time in seconds since 1970. None: until it is enabled."""
        request = pb.DisableChannelRequest(channel=channel, reason=reason)
        if until_s is not None:
            request.expire_time.FromSeconds(until_s)
        await ask(self._operations.DisableChannel, request, asker)

    async def enable_channel(self, asker: OperatorAsker, channel: str) -> None:
        """Enable a channel."""
        request = pb.EnableChannelRequest(channel=channel)
        await ask(self._operations.EnableChannel, request, asker)

    async def reload(self, asker: OperatorAsker) -> None:
        """Reload the configuration."""
        request = pb.ReloadConfigurationRequest()
        await ask(self._operations.ReloadConfiguration, request, asker)

    async def live_calls(
        self, asker: OperatorAsker, selected: LiveCallFilter, token: str = ""
    ) -> pb.ListLiveCallsResponse:
        """Return a page of the calls in flight, oldest first."""
        request = pb.ListLiveCallsRequest(page_token=token, **selected._asdict())
        return await ask(self._operations.ListLiveCalls, request, asker)

    async def abort_call(self, asker: OperatorAsker, call_id: str, reason: str) -> None:
        """Abort a call in flight."""
        request = pb.AbortCallRequest(call_id=call_id, reason=reason)
        await ask(self._operations.AbortCall, request, asker)

    async def test_channel(
        self, asker: OperatorAsker, channel: str, model: str, key_number: int
    ) -> pb.TestChannelResponse:
        """Send one small request to a channel, with one of its keys."""
        request = pb.TestChannelRequest(channel=channel, model=model, key_number=key_number)
        request.timeout.FromSeconds(TEST_TIMEOUT_S)
        timeout_s = TEST_TIMEOUT_S + TIMEOUT_S
        return await ask(self._operations.TestChannel, request, asker, timeout_s)

    async def configuration(self, asker: OperatorAsker) -> Configuration:
        """Return the configuration, and what a reload would change."""
        request = pb.GetConfigurationRequest()
        found = await ask(self._operations.GetConfiguration, request, asker)
        return Configuration(found.configuration_json, found.diff, list(found.problems))

    async def limits(self, asker: OperatorAsker) -> list[pb.Limit]:
        """Return all limits with their use."""
        answer = await ask(self._operations.ListLimits, pb.ListLimitsRequest(), asker)
        return list(answer.limits)

    async def load(self, asker: OperatorAsker) -> pb.GetLoadResponse:
        """Return the load of the service's process."""
        return await ask(self._operations.GetLoad, pb.GetLoadRequest(), asker)

    async def explain(self, asker: OperatorAsker, call: ExplainedCall) -> Explanation:
        """Explain a completion with one message, or the embedding of one text."""
        try:
            return await self._explain_completion(asker, call)
        except ApiError as error:
            if error.reason != ErrorReason.MODEL_NOT_FOUND:
                raise
        # The model computes embeddings, or there is no such model.
        spec = EmbeddingSpec(model=call.model, texts=[call.text])
        request = pb.ExplainEmbeddingsRequest(spec=spec)
        found = await ask(self._operations.ExplainEmbeddings, request, asker)
        return Explanation(
            candidates=list(found.candidates),
            prompt_token_count=found.prompt_token_count,
            request_count=found.request_count,
            hold_nano_usd=found.hold_nano_usd,
        )

    async def _explain_completion(self, asker: OperatorAsker, call: ExplainedCall) -> Explanation:
        part = content.ContentPart(text=call.text)
        message = content.Message(role=content.ROLE_USER, content=[part])
        request = pb.ExplainChatCompletionRequest(
            spec=chat.ChatCompletionSpec(model=call.model, messages=[message]),
            account=call.account,
            session_id=call.session_id,
        )
        found = await ask(self._operations.ExplainChatCompletion, request, asker)
        return Explanation(
            candidates=list(found.candidates),
            prompt_token_count=found.prompt_token_count,
            max_token_count=found.max_token_count,
            hold_nano_usd=found.hold_nano_usd,
            affinity=AFFINITIES.get(found.affinity, ""),
        )
