"""Completions: the core's interface, for the gRPC methods and for an edge in the same process.

A call is recorded, admitted by load, authenticated, and run by the pipeline. Failures leave as
`Failure`.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import msgspec

from services.admission.gate import Gate
from services.admission.interrupt import CallInterrupt
from services.admission.keyring import Keyring
from services.common.call_names import TAGS_HEADER
from services.common.call_tags import read_tags
from services.common.plain_metrics import PlainCounter
from services.common.running_calls import RunningCalls
from services.completions.completion_call import AuthenticatedCall, CallRequest, CompletionCall
from services.completions.idempotency import check_idempotency_key
from services.completions.pipeline import Pipeline
from services.completions.snapshot import SnapshotHolder
from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch
from services.domain.prompt_count import PromptCount, PromptCountRequest
from services.domain.spec import CompletionRequest
from services.errors import Failure, shutting_down
from services.overload.load_shedder import LoadShedder
from services.telemetry.call_facts import NAME_CHARS_MAX
from services.telemetry.calls import CallLog, CallRecord


class CallPipeline(Protocol):
    """Part of a pipeline that the entrance uses."""

    @property
    def gate(self) -> Gate:
        """Admits the calls."""


PipelineT = TypeVar("PipelineT", bound=CallPipeline)
CallT = TypeVar("CallT", bound=AuthenticatedCall[Any])


ToError: TypeAlias = Callable[[str, Exception], Exception]
"""Returns the error to raise for a failure of the call with that request ID."""


class CallEntrance(Generic[PipelineT]):
    """Entrance of calls, whatever they ask for: record, admission by load, authentication."""

    def __init__(
        self,
        pipeline: PipelineT,
        keyring: Keyring,
        snapshots: SnapshotHolder,
        calls: CallLog,
        load_shedder: LoadShedder,
        refused: PlainCounter,
    ) -> None:
        self.pipeline = pipeline
        """Runs the calls."""
        self.keyring = keyring
        """Authenticates the callers."""
        self.snapshots = snapshots
        """Has the configuration."""
        self.calls = calls
        """Records the calls."""
        self.load_shedder = load_shedder
        """Admits the calls by load."""
        self._refused = refused
        self.to_error: ToError | None = None
        """None: failures are raised as they are."""
        self.running = RunningCalls()
        """Calls in flight of the callers of this entrance."""

    def raising(self, to_error: ToError) -> Self:
        """Return the same entrance for callers who get `to_error` of each failure.

        Its calls in flight are its own; all else is shared.
        """
        entrance = copy(self)
        entrance.to_error, entrance.running = to_error, RunningCalls()
        return entrance

    def retry_after_s(self, key: str) -> float | None:
        """Return the `Retry-After` of one more call with this key, if it would be refused by load.

        None: the call may begin. It has no record if it does not.
        """
        retry_after_s = self.load_shedder.retry_after_s(len(self.calls.live) + 1, key)
        if retry_after_s is not None:
            self._refused.value += 1
        return retry_after_s

    def interrupt(self, options: CallOptions) -> CallInterrupt:
        """Return the interrupt of a call at its deadline."""
        to_error = self.to_error and partial(self.to_error, options.request_id)
        return CallInterrupt(get_running_loop().time() + options.deadline_s, to_error)


class EnteredCall(msgspec.Struct, Generic[CallT], eq=False):
    """Scope of a call that is recorded, admitted by load and authenticated."""

    entrance: CallEntrance[Any]
    method: str
    to_call: Callable[..., CallT]
    request: CallRequest
    options: CallOptions
    interrupt: CallInterrupt
    headers: dict[str, str]
    """Gets the headers of the answer before it begins."""
    _record: CallRecord | None = None
    _leave: Callable[[], None] | None = None
    _call: CallT | None = None

    async def __aenter__(self) -> CallT:
        entrance, options = self.entrance, self.options
        record = self._record = entrance.calls.begin(
            options.request_id, self.method, options.trace_context
        )
        entrance.running.add(self)
        request, key, in_flight = self.request, options.key, len(entrance.calls.live)
        try:
            self._leave = entrance.load_shedder.admit(
                record.opened_at, in_flight, options.queue_wait_s, key or ""
            )
            caller = await entrance.keyring.caller(key)
            # From here on a revocation of the key ends the call.
            record.key_id, record.interrupt = caller.key_id, self.interrupt
            record.account = caller.account
            facts = record.facts
            facts.surface = options.surface
            if user := request.spec.user:
                facts.end_user = user[:NAME_CHARS_MAX]
            if options.tags:
                facts.tags = _tags(options.tags)
            if options.idempotency_key is not None:
                check_idempotency_key(options.idempotency_key)
            policy = request.parameter_policy
            self._call = call = self.to_call(
                record=record,
                caller=caller,
                request=request,
                strict=policy == "strict" or (not policy and caller.scope.strict),
                snapshot=entrance.snapshots.current,
                set_headers=self.headers.update,
                idempotency_key=options.idempotency_key,
                request_bytes=options.request_bytes,
                time_left_s=self.interrupt.time_left_s,
            )
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return call

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        call = self._call
        try:
            if isinstance(error, Failure) and call is not None:
                await self._add_limit_headers(error, call)
        finally:
            self.entrance.running.discard(self)
            if self._leave is not None:
                self._leave()
            if self._record is not None:
                self.entrance.calls.end(self._record, error, self.interrupt.time_left_s)

    def end(self) -> None:
        """End the call, since its caller shuts down."""
        self.interrupt.trigger(shutting_down)

    async def _add_limit_headers(self, failure: Failure, call: CallT) -> None:
        """Add the `x-ratelimit-…` headers to a refusal, if the limits that apply are known."""
        if call.plan is not None and not call.record.begun_at and not failure.headers:
            gate: Gate = self.entrance.pipeline.gate
            failure.headers = await gate.limit_headers(call.plan)


class Completions(CallEntrance[Pipeline]):
    """Makes completions. Without an interrupt of its own, a call ends at its options' deadline."""

    async def whole(
        self,
        request: CompletionRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt | None = None,
    ) -> Completion:
        """Return a whole answer, and add its headers to `headers` before that."""
        interrupt = interrupt or self.interrupt(options)
        with interrupt:
            async with EnteredCall(
                self, "create", CompletionCall, request, options, interrupt, headers
            ) as call:
                return await self.pipeline.whole(call)

    def stream(
        self,
        request: CompletionRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer. Its headers are in `headers` before the first."""
        interrupt = interrupt or self.interrupt(options)
        entered = EnteredCall(self, "stream", CompletionCall, request, options, interrupt, headers)
        return interrupt.guard(entered, self.pipeline.stream)

    async def count_prompt(
        self, request: PromptCountRequest, authorization: str | None, size: int
    ) -> PromptCount:
        """Return the tokens of a prompt, whose request has `size` bytes. Nothing is billed.

        Raises Failure as `PromptCounts.count` does.
        """
        caller = await self.keyring.authenticate(authorization)
        plans = self.snapshots.current.plans
        return await self.pipeline.counts.count(caller, plans, request, size)


def _tags(text: str) -> Mapping[str, str]:
    try:
        return read_tags(text)
    except ValueError as error:
        raise Failure(ErrorReason.INVALID_FIELD, str(error), param=TAGS_HEADER) from None
