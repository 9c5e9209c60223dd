"""Commands about the running service: explain, reload."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.embeddings.v1.embedding_service_pb2 import CreateEmbeddingsRequest
from pomogator.operations.v1 import operations_service_pb2 as pb

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.rpc.status_mapping import to_api_error
from gateway.surfaces.embeddings.decode import decode as decode_embeddings
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from services.admission.call_plan import CallPlans
from services.cli.channel_commands import BREAKER_STATES
from services.cli.operator_client import Operators, needing_server, operators
from services.cli.output import CommandError, say, show_usd
from services.clock import SystemClock, system_chance
from services.common.contract.chat import SPEC
from services.common.contract.embeddings import read_embedding_request, to_embedding_request
from services.config import ConfigError, load
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.operations.embedding_explainer import EmbeddingExplainer
from services.operations.explainer import Explainer
from services.providers.registry import DIALECTS, EMBEDDING_DIALECTS, NAMES
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth

COMPLETION = {"messages": [{"role": "user", "content": "Hello!"}]}
EMBEDDINGS = {"input": "Hello!"}
"""Requests that `explain` uses if no file is given: the second for models that embed."""

_Request: TypeAlias = pb.ExplainChatCompletionRequest | pb.ExplainEmbeddingsRequest
_Answer: TypeAlias = pb.ExplainChatCompletionResponse | pb.ExplainEmbeddingsResponse

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
    requests = [_request(body, arguments) for body in _bodies(arguments)]
    async with operators(arguments, env) as service:
        answer = await _explain(requests, service, arguments, env)
    if isinstance(answer, pb.ExplainEmbeddingsResponse):
        _say_embeddings(answer)
    else:
        _say_completion(answer)
    _say_candidates(answer.candidates)


KEPT = "The server keeps the configuration that it has."


async def reload_configuration(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Make the running server reload its configuration."""
    try:
        async with operators(arguments, env) as service:
            with needing_server("it reads its configuration when it starts"):
                await service.ask(
                    service.operations.ReloadConfiguration, pb.ReloadConfigurationRequest()
                )
    except ConfigError as error:
        raise CommandError(f"{error}\n{KEPT}") from None
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        raise CommandError(f"{error.details()}\n{KEPT}") from None
    say("reloaded")


def _bodies(arguments: Namespace) -> Sequence[Mapping[str, Any]]:
    """Return the body of the file, or else an example for each kind of model."""
    named = {"model": arguments.model} if arguments.model else {}
    if arguments.file is None:
        if not named:
            raise CommandError("give --model, --file or both")
        return [{**COMPLETION, **named}, {**EMBEDDINGS, **named}]
    try:
        body = json.loads(arguments.file.read_bytes())
    except ValueError:
        raise CommandError(f"{arguments.file}: is not JSON") from None
    if not isinstance(body, dict):
        raise CommandError(f"{arguments.file}: is not a JSON object")
    return [{**body, **named}]


def _request(body: Mapping[str, Any], arguments: Namespace) -> _Request:
    """Return the request to explain a body of the REST API."""
    text = json.dumps(body).encode()
    try:
        if "input" in body and "messages" not in body:
            request = to_embedding_request(decode_embeddings(text).request(""))
            return pb.ExplainEmbeddingsRequest(spec=request.spec)
        spec = decode_fields(text, EdgeConfig()).spec
    except ApiError as error:
        raise CommandError(error.message) from None
    message = chat.ChatCompletionSpec()
    SPEC.fill(spec, message)
    return pb.ExplainChatCompletionRequest(
        spec=message, session_id=arguments.session, account=arguments.account
    )


async def _explain(
    requests: Sequence[_Request], service: Operators, arguments: Namespace, env: Mapping[str, str]
) -> _Answer:
    """Explain the first request whose model is of its kind."""
    for request in requests:
        try:
            return await _ask(request, service, arguments, env)
        except Failure as failure:
            if failure.reason != ErrorReason.MODEL_NOT_FOUND:
                raise
        except grpc.aio.AioRpcError as error:
            if to_api_error(error, "").reason != ErrorReason.MODEL_NOT_FOUND:
                raise
    raise CommandError(
        f"Invalid model specified: no channel serves {requests[0].spec.model!r}; "
        "`pomogator models list` lists the names in a configuration"
    )


async def _ask(
    request: _Request, service: Operators, arguments: Namespace, env: Mapping[str, str]
) -> _Answer:
    """Ask the server or, where none runs, explainers that do not know the channels' health."""
    try:
        if isinstance(request, pb.ExplainEmbeddingsRequest):
            return await service.ask(service.operations.ExplainEmbeddings, request)
        return await service.ask(service.operations.ExplainChatCompletion, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    config = load(arguments.config, env, dialects=NAMES, secrets=False)
    catalog = Catalog(config)
    plans, health = CallPlans(config, catalog.resolve_all), ChannelHealth(SystemClock())
    chance = system_chance()
    if isinstance(request, pb.ExplainEmbeddingsRequest):
        embedding_explainer = EmbeddingExplainer(
            catalog=catalog, plans=plans, dialects=EMBEDDING_DIALECTS, health=health, chance=chance
        )
        asked = read_embedding_request(CreateEmbeddingsRequest(spec=request.spec))
        return await embedding_explainer.explain(asked)
    explainer = Explainer(
        catalog=catalog, plans=plans, dialects=DIALECTS, health=health, chance=chance
    )
    return explainer.explain(SPEC.read(request.spec))


def _prices(candidate: pb.Candidate) -> str:
    if not candidate.HasField("prices"):
        return "no price: refused to accounts that pay, unless billing.unpriced is 'free'"
    return (
        f"USD per million tokens: prompt {candidate.prices.prompt_pico_usd / 1e6:g}, "
        f"completion {candidate.prices.completion_pico_usd / 1e6:g}"
    )


def _say_completion(answer: pb.ExplainChatCompletionResponse) -> None:
    say(
        f"about {answer.prompt_token_count} prompt tokens, at most {answer.max_token_count} "
        f"completion tokens; held: {show_usd(answer.hold_nano_usd)} USD"
    )
    say(f"session affinity: {_AFFINITIES[answer.affinity]}")


def _say_embeddings(answer: pb.ExplainEmbeddingsResponse) -> None:
    say(
        f"at most {answer.prompt_token_count} prompt tokens in {answer.request_count} requests "
        f"to the provider; held: {show_usd(answer.hold_nano_usd)} USD"
    )


def _say_candidates(candidates: Sequence[pb.Candidate]) -> None:
    for number, candidate in enumerate(candidates, 1):
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
