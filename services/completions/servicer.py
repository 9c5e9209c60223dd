"""The border of the completions: proto in, proto out."""

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
    """Serves completions from a pipeline, to callers with a key."""

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
        """`end_revoked` says whether running calls end when their key is revoked."""
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
        """One completion, whole."""
        metadata = metadata_of(context)
        request_id, left_s = request_id_of(metadata), context.time_remaining
        headers: dict[str, str] = {}
        with (
            self._calls.recording(request_id, "create", left_s, metadata) as record,
            self._admit(record, metadata, left_s()),
        ):
            call = await self._call(request, metadata, left_s, record)
            try:
                answer = await self._pipeline.whole(call, headers.update)
            except Failure as failure:
                await self._tell_limits(failure, call)
                raise
        if headers:
            await context.send_initial_metadata(tuple(headers.items()))
        return answer

    async def StreamChatCompletion(
        self,
        request: pb.StreamChatCompletionRequest,
        context: Context,
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        """One completion, as it is made: one message for every read from the provider."""
        metadata = metadata_of(context)
        request_id, left_s = request_id_of(metadata), context.time_remaining
        headers: dict[str, str] = {}
        with (
            self._calls.recording(request_id, "stream", left_s, metadata) as record,
            self._admit(record, metadata, left_s()),
        ):
            call = await self._call(request, metadata, left_s, record)
            try:
                async with aclosing(self._pipeline.stream(call, headers.update)) as batches:
                    async for batch in batches:
                        if headers:
                            await context.send_initial_metadata(tuple(headers.items()))
                            headers.clear()
                        yield batch
            except Failure as failure:
                await self._tell_limits(failure, call)
                raise

    def _admit(
        self, record: CallRecord, metadata: Mapping[str, str], left_s: float | None
    ) -> CountedCall:
        waited_s = queue_wait_s(metadata, left_s)
        key = unchecked_token(metadata.get("authorization", ""))
        return self._load_shedder.admit(record.opened_at, self._calls.inflight, waited_s, key)

    async def _tell_limits(self, failure: Failure, call: CompletionCall) -> None:
        """A refusal says how the limits stand, too, once it is known which apply."""
        record = call.record
        if record.model and not record.begun_at and not failure.headers:
            failure.headers = await call.snapshot.gate.limit_headers(call.caller, record.model)

    async def _call(
        self,
        request: pb.CreateChatCompletionRequest | pb.StreamChatCompletionRequest,
        metadata: Mapping[str, str],
        left_s: Callable[[], float | None],
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
            left_s=left_s,
            revocation=self._keyring.revocation(caller) if self._end_revoked else None,
        )
