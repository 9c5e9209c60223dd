"""Calls in flight in this process: listed, and aborted one by one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.proto_fields import not_found
from services.clock import Clock
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.paging import Page
from services.telemetry.calls import CallLog, CallRecord

_NO_CALL = "This process has no such call in flight."


def call_aborted() -> Failure:
    """Return the failure of an aborted call."""
    message = "An operator of the gateway has ended this call."
    return Failure(ErrorReason.CALL_ABORTED, message)


@dataclass(frozen=True, slots=True)
class LiveCalls:
    """Calls in flight, by IDs that no other process has."""

    log: CallLog
    clock: Clock
    _process: str = field(default_factory=lambda: secrets.token_hex(4))

    def page(self, request: pb.ListLiveCallsRequest) -> pb.ListLiveCallsResponse:
        """Return a page of the calls that a request selects. Raise Failure INVALID_FIELD."""
        wanted = (request.account, request.key_id, request.model, request.channel)
        page = Page.of(request.page_size, request.page_token, "ListLiveCalls", *wanted)
        # Without an interrupt a call has no known caller yet.
        selected = [
            number
            for number, record in self.log.live.items()
            if record.interrupt is not None and _is_selected(record, wanted)
        ]
        after, _ = page.after
        found = [number for number in selected if number > after][: page.limit]
        messages = (self._to_proto(number, self.log.live[number]) for number in found)
        shown, token = page.cut(found, messages, lambda number: (number, ""))
        return pb.ListLiveCallsResponse(
            calls=shown, next_page_token=token, total_count=len(selected)
        )

    def abort(self, call_id: str) -> pb.LiveCall:
        """Abort a call, and return it as it was. Raise Failure NOT_FOUND if it is over."""
        number, record = self._find(call_id)
        call = self._to_proto(number, record)
        record.is_aborted = True
        if record.interrupt is not None:
            record.interrupt.trigger(call_aborted)
        return call

    def _find(self, call_id: str) -> tuple[int, CallRecord]:
        process, _, digits = call_id.rpartition("-")
        if process == f"live-{self._process}" and digits.isascii() and digits.isdecimal():
            number = int(digits[:20])
            record = self.log.live.get(number)
            # The answer of a call that has finished is complete, and paid.
            if record is not None and record.interrupt is not None and not record.finish:
                return number, record
        raise not_found("call_id", _NO_CALL)

    def _to_proto(self, number: int, record: CallRecord) -> pb.LiveCall:
        facts = record.facts
        call = pb.LiveCall(
            call_id=f"live-{self._process}-{number}",
            request_id=record.request_id,
            account=record.account,
            key_id=record.key_id,
            surface=facts.surface,
            streamed=record.method == "stream",
            model=record.model,
            channel=record.channel,
            attempt_count=len(record.attempts),
            state=_state(record),
            completion_token_count=record.tokens_so_far() if record.tokens_so_far else 0,
            end_user=facts.end_user,
            session_id=facts.session,
        )
        age_s = self.clock.now() - record.opened_at
        call.create_time.FromMilliseconds(round((self.clock.time() - age_s) * 1000))
        return call


def _is_selected(record: CallRecord, wanted: tuple[str, ...]) -> bool:
    facts = (record.account, record.key_id, record.model, record.channel)
    return all(name in {"", fact} for name, fact in zip(wanted, facts, strict=True))


def _state(record: CallRecord) -> pb.LiveCallState.ValueType:
    if record.is_aborted:
        return pb.LIVE_CALL_STATE_ABORTING
    if record.begun_at:
        return pb.LIVE_CALL_STATE_ANSWERING
    if record.attempts:
        return pb.LIVE_CALL_STATE_WAITING
    return pb.LIVE_CALL_STATE_STARTING
