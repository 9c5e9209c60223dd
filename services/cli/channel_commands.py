"""Commands about channels: list, disable, enable, test."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.cli.operator_client import ANSWER_TIMEOUT_S, needing_server, operators
from services.cli.output import CommandError, say, say_table, show_time, show_usd

BREAKER_STATES: Mapping[pb.BreakerState.ValueType, str] = {
    pb.BREAKER_STATE_CLOSED: "closed",
    pb.BREAKER_STATE_HALF_OPEN: "half-open",
    pb.BREAKER_STATE_OPEN: "open",
}
ONLY_A_SERVER = "only a server has channels"


async def list_channels(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the health of the running server's channels, and which are disabled."""
    async with operators(arguments, env) as service:
        request = pb.ListChannelsRequest(model=arguments.model or "")
        with needing_server("only a server knows their health"):
            answer = await service.ask(service.operations.ListChannels, request)
    say_table(
        (
            *("MODEL", "CHANNEL", "KEY", "PRIORITY", "WEIGHT", "SCORE", "BREAKER", "ERRORS"),
            *("LATENCY", "DISABLED", "LAST FAILURE"),
        ),
        [_row(status) for status in answer.channels],
    )


async def disable_channel(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Keep calls away from a channel."""
    request = pb.DisableChannelRequest(
        channel=arguments.name, reason=arguments.reason, expire_time=arguments.until
    )
    async with operators(arguments, env) as service:
        with needing_server(ONLY_A_SERVER):
            await service.ask(service.operations.DisableChannel, request)
    until = f" until {show_time(arguments.until)}" if arguments.until else ""
    say(f"{arguments.name} is disabled{until}")


async def enable_channel(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Let calls go to a channel again."""
    request = pb.EnableChannelRequest(channel=arguments.name)
    async with operators(arguments, env) as service:
        with needing_server(ONLY_A_SERVER):
            await service.ask(service.operations.EnableChannel, request)
    say(f"{arguments.name} is enabled")


async def test_channel(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Send one small request to a channel, and print how it was answered. Fails if it was not."""
    request = pb.TestChannelRequest(
        channel=arguments.name,
        model=arguments.model or "",
        key_number=arguments.key,
        timeout=arguments.timeout,
    )
    timeout_s = arguments.timeout.seconds + ANSWER_TIMEOUT_S
    async with operators(arguments, env) as service:
        with needing_server(ONLY_A_SERVER):
            test = await service.ask(service.operations.TestChannel, request, timeout_s)
    say(f"model:    {test.model}, as {test.provider_model} in the dialect {test.dialect}")
    say(f"duration: {_show_ms(test.duration)}")
    if test.HasField("time_to_first_token"):
        say(f"begun:    after {_show_ms(test.time_to_first_token)}")
    if test.HasField("usage"):
        prompt, completion = test.usage.prompt_token_count, test.usage.completion_token_count
        say(f"tokens:   {prompt} of the prompt, {completion} of the answer")
    if test.HasField("cost_nano_usd"):
        say(f"cost:     {show_usd(test.cost_nano_usd)} USD, charged to no account")
    if test.reason:
        status = f" (HTTP {test.http_status})" if test.http_status else ""
        cause = f" Cause: {test.cause}" if test.cause else ""
        raise CommandError(f"{test.reason}{status}: {test.message}{cause}")
    say("OK: the channel answers")


def _show_ms(duration: Duration) -> str:
    return f"{duration.ToMilliseconds()} ms"


def _row(status: pb.ChannelStatus) -> tuple[str, ...]:
    cooldown = f" {status.rest.ToMilliseconds() / 1000:.0f} s" if status.HasField("rest") else ""
    latency_text = f"{status.latency.ToMilliseconds()} ms" if status.HasField("latency") else "-"
    failure = f"{show_time(status.last_failure_time)} {status.last_failure}"
    return (
        status.model,
        status.channel,
        str(status.key_number),
        str(status.priority),
        f"{status.weight:g}",
        f"{status.score:.2f}",
        BREAKER_STATES[status.breaker_state] + cooldown,
        f"{status.error_rate:.0%}",
        latency_text,
        _disabled(status),
        failure if status.last_failure else "-",
    )


def _disabled(status: pb.ChannelStatus) -> str:
    if not status.HasField("disablement"):
        return "-"
    until = status.disablement.HasField("expire_time")
    end = f" until {show_time(status.disablement.expire_time)}" if until else ""
    return f"{status.disablement.reason}{end}"
