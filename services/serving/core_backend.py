"""Core backend: the core of this process behind an edge in the same process, without gRPC.

Completions, which are nearly all calls, pass the core as structs of the domain. The other methods
go over the channel to the servicers, as those of an edge apart do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cache
from typing import Self

import grpc

from gateway.backend import CallOptions, ServiceState, StreamReply, WholeReply
from gateway.errors import ApiError, internal
from gateway.rpc.grpc_backend import GrpcBackend
from services.admission.keyring import Keyring
from services.common.call_names import PROVIDER_CODE, SCARCE
from services.completions.completions import CallContext, Completions
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch
from services.domain.spec import CompletionRequest
from services.errors import Failure
from services.serving.service import Service

log = logging.getLogger(__name__)


class CoreBackend(GrpcBackend):
    """The core of this process. See `gateway.backend.Backend`."""

    def __init__(
        self,
        completions: Completions,
        keyring: Keyring,
        serves: Callable[[], Awaitable[bool]],
        channel: grpc.aio.Channel,
    ) -> None:
        """`serves` returns whether calls are accepted; `channel` leads to the servicers."""
        super().__init__(channel)
        self._completions = completions
        self._keyring = keyring
        self._serves = serves

    @classmethod
    def of(cls, service: Service, channel: grpc.aio.Channel) -> Self:
        """Return the backend of a service, to whose servicers `channel` leads."""
        return cls(service.completions, service.keyring, service.serves, channel)

    async def whole(self, request: CompletionRequest, call: CallOptions) -> WholeReply:
        """Return the whole answer to a request."""
        headers: dict[str, str] = {}
        deadline = CallDeadline(call.deadline_s)
        try:
            with deadline:
                completion = await self._completions.whole(
                    request, _context(call, deadline), headers.update
                )
        except Exception as error:  # noqa: BLE001 - a border: every failure becomes an ApiError
            raise _api_error(error, call.request_id) from None
        finally:
            deadline.stop()
        return WholeReply(completion, headers)

    def stream(self, request: CompletionRequest, call: CallOptions) -> StreamReply:
        """Return the stream of an answer."""
        headers: dict[str, str] = {}
        return StreamReply(self._batches(request, call, headers), headers)

    async def _batches(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str]
    ) -> AsyncGenerator[Batch, None]:
        deadline = CallDeadline(call.deadline_s)
        batches = self._completions.stream(request, _context(call, deadline), headers.update)
        # The deadline and the reader may both close it, also at once, and only one may do it.
        close = deadline.on_idle = cache(lambda: asyncio.ensure_future(batches.aclose()))
        try:
            try:
                while True:
                    with deadline:
                        batch = await anext(batches, None)
                    if batch is None:
                        return
                    yield batch
            except BaseException:
                await asyncio.shield(close())
                raise
        except Exception as error:  # noqa: BLE001 - a border: every failure becomes an ApiError
            raise _api_error(error, call.request_id) from None
        finally:
            deadline.stop()

    async def check_key(self, key: str, request_id: str) -> bool:
        """Return whether the key is valid; False where the store does not answer."""
        try:
            await self._keyring.authenticate(f"Bearer {key}")
        except Exception as failure:  # noqa: BLE001 - a border: every failure becomes an ApiError
            error = _api_error(failure, request_id)
            if error.row.failed_auth:
                raise error from None
            return False
        return True

    async def state(self, timeout_s: float) -> ServiceState:  # noqa: ARG002 - it answers at once
        """Return whether calls are accepted."""
        return "ready" if await self._serves() else "not serving"


class CallDeadline:
    """Deadline of a call, which the current task runs in steps, each in this context.

    A step that is awaited when the deadline passes is cancelled, and raises Failure DEADLINE.
    Between two steps, `on_idle` is called, and the next step raises.
    """

    __slots__ = ("_at", "_cancelling", "_loop", "_task", "_timer", "on_idle", "passed")

    def __init__(self, timeout_s: float) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._at = loop.time() + timeout_s
        self._timer = loop.call_at(self._at, self._pass)
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.on_idle: Callable[[], object] | None = None
        self.passed = False
        """Whether the deadline has passed."""

    def __enter__(self) -> Self:
        if self.passed:
            raise _deadline_passed()
        self._task = task = asyncio.current_task(self._loop)
        self._cancelling = task.cancelling() if task else 0
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        task, self._task = self._task, None
        # As `asyncio.timeout` does it: the cancellation of this class is taken back, even where it
        # was swallowed; one from elsewhere goes on.
        if self.passed and task is not None and task.uncancel() <= self._cancelling:
            raise _deadline_passed() from None

    def time_left_s(self) -> float:
        """Return the seconds until the deadline."""
        return max(0.0, self._at - self._loop.time())

    def stop(self) -> None:
        """Cancel the timer: the call has ended."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        if self._task is not None:
            self._task.cancel()
        elif self.on_idle is not None:
            self.on_idle()


def _context(call: CallOptions, deadline: CallDeadline) -> CallContext:
    return CallContext(
        request_id=call.request_id,
        authorization=f"Bearer {call.key}",
        time_left_s=deadline.time_left_s,
        idempotency_key=call.idempotency_key or None,
        trace_context=dict(call.trace_context),
    )


def to_api_error(failure: Failure) -> ApiError:
    """Return the error that a client gets for a failure of the core."""
    return ApiError(
        failure.reason,
        failure.shown_message,
        param=failure.param or None,
        code=failure.facts.get(PROVIDER_CODE, ""),
        retry_after_s=failure.retry_after_s,
        headers=failure.headers,
        scarce=failure.facts.get(SCARCE, ""),
    )


def _api_error(error: Exception, request_id: str) -> ApiError:
    if isinstance(error, Failure):
        return to_api_error(error)
    log.error("call.failed", extra={"request_id": request_id}, exc_info=error)
    return internal(request_id)


def _deadline_passed() -> Failure:
    return Failure(ErrorReason.DEADLINE, "The time for this request is over.")
