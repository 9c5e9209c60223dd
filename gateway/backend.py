"""Backend: the service behind the edge, as the edge calls it.

Requests and answers are the domain's, failures are `ApiError`. A call ends at once when the task
that awaits it is cancelled, or the batches of its stream are closed.
`gateway.rpc.grpc_backend` calls a service over gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, Protocol, TypeAlias

from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.domain.events import Batch
from services.domain.model import Model
from services.domain.prompt_count import PromptCount, PromptCountRequest
from services.domain.spec import CompletionRequest

ServiceState: TypeAlias = Literal["ready", "not serving", "unreachable"]

CallLimit: TypeAlias = Callable[[str], float | None]
"""A limit of calls in flight. For the key of a caller it returns the seconds to wait before a
retry, or None where one more call of that caller is within the limit, and memory is not short. That
call starts in this loop turn or the next one, if at all."""


class LearnedLimit(Protocol):
    """A limit that an edge has learned (`gateway.overload.concurrency_limit`)."""

    calls_max: int | None
    """The most calls in flight. None: no service has refused a call yet."""
    refused: int
    """Calls that the edge refused so far."""


class Backend(Protocol):
    """The service behind the edge. All methods but `state` raise ApiError.

    `headers` gets the headers for the client: before a method returns, and before the first batch
    of a stream.
    """

    call_limit: CallLimit
    """The limit to ask before each call."""
    learned_limit: LearnedLimit | None = None
    """The limit learned from the refusals of a service apart. None: the service is in this
    process."""

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Completion:
        """Return the whole answer to a request."""

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer. Awaiting one raises ApiError.

        The call begins when the first batch is awaited. Close the batches
        (`contextlib.aclosing`), also after a failure.
        """

    async def embed(
        self, request: EmbeddingRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Embeddings:
        """Return the embeddings of a request."""

    async def count_prompt(self, request: PromptCountRequest, call: CallOptions) -> PromptCount:
        """Return the tokens of a prompt. Nothing is billed."""

    async def models(self, call: CallOptions) -> Sequence[Model]:
        """Return all models that the key may use, sorted by name."""

    async def model(self, name: str, call: CallOptions) -> Model:
        """Return a model that the key may use. Raise ApiError NOT_FOUND for any other name."""

    async def check_key(self, key: str, request_id: str) -> bool:
        """Return whether the service accepted the key; False where it cannot say.

        Raises ApiError: the key is not valid.
        """

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls in flight to end. After `timeout_s` the others raise SHUTTING_DOWN."""

    async def state(self, timeout_s: float) -> ServiceState:
        """Return whether a service answers, and accepts calls."""
