"""The gRPC methods of chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.admission.keyring import Keyring
from services.common.fair_share import CountedCall
from services.common.request_headers import unchecked_token
from services.completions.idempotency import idempotency_key
from services.completions.pipeline import CompletionCall, Pipeline
from services.completions.snapshot import SnapshotHolder
from services.errors import Failure
from services.overload.load_shedder import LoadShedder
from services.rpc.failure_border import Context, metadata_of, queue_wait_s, request_id_of
from services.telemetry.calls import CallLog, CallRecord


class ChatCompletionServicer(pb_grpc.ChatCompletionServiceServicer):
    """Authenticates calls, runs them through the pipeline, and sends their answers."""

    def __init__(
        self,
        keyring: Keyring,
        pipeline: Pipeline,
        snapshots: SnapshotHolder,
        calls: CallLog,
        load_shedder: LoadShedder,
        *,
        end_revoked: bool = True,
    ) -> None:
        """`end_revoked`: whether calls in flight end when their key is revoked."""
        self._keyring = keyring
        self._pipeline = pipeline
        self._snapshots = snapshots
        self._calls = calls
        self._load_shedder = load_shedder
        self._end_revoked = end_revoked

    async def CreateChatCompletion(
        self,
        request: pb.CreateChatCompletionRequest,
        context: Context,
    ) -> pb.CreateChatCompletionResponse:
        """Answer with one message."""
        metadata = metadata_of(context)
        request_id, time_left_s = request_id_of(metadata), context.time_remaining
        headers: dict[str, str] = {}
        with (
            self._calls.recording(request_id, "create", time_left_s, metadata) as record,
            self._admit(record, metadata, time_left_s()),
        ):
            call = await self._authenticated_call(request, metadata, time_left_s, record)
            try:
                answer = await self._pipeline.whole(call, headers.update)
            except Failure as failure:
                await self._add_limit_headers(failure, call)
                raise
        if headers:
            await context.send_initial_metadata(tuple(headers.items()))
        return answer

    async def StreamChatCompletion(
        self,
        request: pb.StreamChatCompletionRequest,
        context: Context,
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        """Answer with a stream: one message for every read from the provider."""
        metadata = metadata_of(context)
        request_id, time_left_s = request_id_of(metadata), context.time_remaining
        headers: dict[str, str] = {}
        with (
            self._calls.recording(request_id, "stream", time_left_s, metadata) as record,
            self._admit(record, metadata, time_left_s()),
        ):
            call = await self._authenticated_call(request, metadata, time_left_s, record)
            try:
                async with aclosing(self._pipeline.stream(call, headers.update)) as batches:
                    async for batch in batches:
                        if headers:
                            await context.send_initial_metadata(tuple(headers.items()))
                            headers.clear()
                        yield batch
            except Failure as failure:
                await self._add_limit_headers(failure, call)
                raise

    def _admit(
        self, record: CallRecord, metadata: Mapping[str, str], time_left_s: float | None
    ) -> CountedCall:
        waited_s = queue_wait_s(metadata, time_left_s)
        key = unchecked_token(metadata.get("authorization", ""))
        return self._load_shedder.admit(record.opened_at, self._calls.inflight, waited_s, key)

    async def _add_limit_headers(self, failure: Failure, call: CompletionCall) -> None:
        """Add the `x-ratelimit-…` headers to a refusal, if the limits that apply are known."""
        record = call.record
        if record.model and not record.begun_at and not failure.headers:
            failure.headers = await call.snapshot.gate.limit_headers(call.caller, record.model)

    async def _authenticated_call(
        self,
        request: pb.CreateChatCompletionRequest | pb.StreamChatCompletionRequest,
        metadata: Mapping[str, str],
        time_left_s: Callable[[], float | None],
        record: CallRecord,
    ) -> CompletionCall:
        caller = await self._keyring.authenticate(metadata.get("authorization"))
        record.key_id, record.account = caller.key_id, caller.account
        return CompletionCall(
            record=record,
            caller=caller,
            spec=request.spec,
            snapshot=self._snapshots.current,
            parameter_policy=request.parameter_policy,
            idempotency_key=idempotency_key(metadata),
            time_left_s=time_left_s,
            revocation=self._keyring.revocation(caller) if self._end_revoked else None,
        )
