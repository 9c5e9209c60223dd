"""Commands about the running service: explain, reload."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.operations.v1 import operations_service_pb2 as pb

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_chat.decode import decode
from services.admission.call_plan import CallPlans
from services.cli.channel_commands import BREAKER_STATES
from services.cli.operator_client import needing_server, operators
from services.cli.output import CommandError, say, show_usd
from services.clock import SystemClock, system_chance
from services.common.contract.chat import SPEC
from services.config import load
from services.operations.explainer import Explainer
from services.providers.registry import DIALECTS, NAMES
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth

EXAMPLE = {"messages": [{"role": "user", "content": "Hello!"}]}
"""Request that `explain` uses if no file is given."""

_AFFINITIES: Mapping[pb.Affinity.ValueType, str] = {
    pb.AFFINITY_UNSPECIFIED: "not known: no server runs",
    pb.AFFINITY_SESSION: "the order is that of its session",
    pb.AFFINITY_CONVERSATION: "the order is that of its conversation",
    pb.AFFINITY_OFF: "none: prompt_cache.affinity is off",
    pb.AFFINITY_NO_CHOICE: "none: the model has one channel with one key",
    pb.AFFINITY_NO_CACHE_PRICE: "none: cached tokens of the model have no lower price",
    pb.AFFINITY_SHORT_PROMPT: "none: no provider caches so short a prompt",
}


async def explain_call(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the channels for a request, the bodies they would get, and its hold. Sends nothing."""
    request = pb.ExplainChatCompletionRequest(
        spec=_spec(arguments), session_id=arguments.session, account=arguments.account
    )
    async with operators(arguments, env) as service:
        try:
            answer = await service.ask(service.operations.ExplainChatCompletion, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            # No server runs: the health of the channels is unknown, all else is known.
            answer = _explainer(arguments, env).explain(SPEC.read(request.spec))
    _say(answer)


async def reload_configuration(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Make the running server reload its configuration."""
    async with operators(arguments, env) as service:
        with needing_server("it reads its configuration when it starts"):
            await service.ask(
                service.operations.ReloadConfiguration, pb.ReloadConfigurationRequest()
            )
    say("reloaded")


def _spec(arguments: Namespace) -> chat.ChatCompletionSpec:
    if arguments.file is None and arguments.model is None:
        raise CommandError("give --model, --file or both")
    try:
        body = EXAMPLE if arguments.file is None else json.loads(arguments.file.read_bytes())
        if not isinstance(body, dict):
            raise CommandError(f"{arguments.file}: is not a JSON object")
        named = {"model": arguments.model} if arguments.model else {}
        spec = decode(json.dumps({**body, **named}).encode(), EdgeConfig()).spec
    except ValueError:
        raise CommandError(f"{arguments.file}: is not JSON") from None
    except ApiError as error:
        raise CommandError(error.message) from None
    message = chat.ChatCompletionSpec()
    SPEC.fill(spec, message)
    return message


def _explainer(arguments: Namespace, env: Mapping[str, str]) -> Explainer:
    config = load(arguments.config, env, dialects=NAMES, secrets=False)
    catalog = Catalog(config)
    return Explainer(
        catalog=catalog,
        plans=CallPlans(config, catalog.resolve_all),
        dialects=DIALECTS,
        health=ChannelHealth(SystemClock()),
        chance=system_chance(),
    )


def _prices(candidate: pb.Candidate) -> str:
    if not candidate.HasField("prices"):
        return "no price: refused to accounts that pay, unless billing.unpriced is 'free'"
    return (
        f"USD per million tokens: prompt {candidate.prices.prompt_pico_usd / 1e6:g}, "
        f"completion {candidate.prices.completion_pico_usd / 1e6:g}"
    )


def _say(answer: pb.ExplainChatCompletionResponse) -> None:
    say(
        f"about {answer.prompt_token_count} prompt tokens, at most {answer.max_token_count} "
        f"completion tokens; held: {show_usd(answer.hold_nano_usd)} USD"
    )
    say(f"session affinity: {_AFFINITIES[answer.affinity]}")
    for number, candidate in enumerate(answer.candidates, 1):
        latency = ""
        if candidate.HasField("latency"):
            latency = f", latency {candidate.latency.ToMilliseconds()} ms"
        say("")
        say(
            f"{number}. {candidate.channel} for {candidate.model}: priority {candidate.priority}, "
            f"weight {candidate.weight:g} x {candidate.score:.2f}, key {candidate.key_number}, "
            f"breaker {BREAKER_STATES[candidate.breaker_state]}{latency}"
            f"{', answered last' if candidate.remembered else ''}"
        )
        if candidate.refusal:
            say(f"   skipped: {candidate.refusal}")
            continue
        say(f"   {_prices(candidate)}")
        for note in candidate.notes:
            action = chat.NoteAction.Name(note.action).removeprefix("NOTE_ACTION_").lower()
            say(f"   {note.param} {action}: {note.detail}")
        say(f"   POST {candidate.url}")
        say(f"   {candidate.body}")
