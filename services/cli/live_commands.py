"""Commands about calls in flight: live, abort."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.cli.operator_client import needing_server, operators
from services.cli.output import say, say_table, show_time

PAGE_SIZE = 1000
ONLY_A_SERVER = "only a server has calls in flight"


async def list_live_calls(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the calls in flight of the running server, oldest first."""
    request = pb.ListLiveCallsRequest(
        account=arguments.account,
        key_id=arguments.key,
        model=arguments.model,
        channel=arguments.channel,
        page_size=PAGE_SIZE,
    )
    rows = []
    async with operators(arguments, env) as service:
        while True:
            with needing_server(ONLY_A_SERVER):
                answer = await service.ask(service.operations.ListLiveCalls, request)
            rows += [_row(call) for call in answer.calls]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
    say_table(
        (
            *("CALL", "SINCE", "ACCOUNT", "KEY", "API", "MODEL", "CHANNEL", "ATTEMPTS", "STATE"),
            *("TOKENS", "REQUEST ID"),
        ),
        rows,
    )


async def abort_call(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Abort a call in flight."""
    request = pb.AbortCallRequest(call_id=arguments.id, reason=arguments.reason)
    async with operators(arguments, env) as service:
        with needing_server(ONLY_A_SERVER):
            call = (await service.ask(service.operations.AbortCall, request)).call
    say(f"{call.call_id} is aborted: request {call.request_id} of {call.account}")


def _row(call: pb.LiveCall) -> tuple[str, ...]:
    return (
        call.call_id,
        show_time(call.create_time),
        call.account,
        call.key_id,
        call.surface,
        call.model or "-",
        call.channel or "-",
        str(call.attempt_count),
        pb.LiveCallState.Name(call.state).removeprefix("LIVE_CALL_STATE_").lower(),
        str(call.completion_token_count),
        call.request_id,
    )
