"""Secrets in logs, metrics, errors and answers."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import content_pb2 as content
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc
from prometheus_client import generate_latest

from gateway.console.askers import TenantAsker
from gateway.console.operator_access import OperatorAccess
from gateway.console.sessions import Session
from services.config import Secret, StateConfig
from services.domain.call_options import CallOptions
from services.rpc.listener import listening
from services.serving.listeners import Listeners
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import MESSAGES, MODEL, PROMPT, PROVIDER_KEY, fitting

PASSWORD = "canary-password-77"


async def test_configuration_metrics_and_operators_answers_hold_no_secret(
    open_stand: OpenStand,
) -> None:
    """Printed configuration, metrics and operators' answers hold no secret. Row 49."""
    url = Secret(f"postgresql://u:{PASSWORD}@h/d")
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.ask()).status == 200
    service = stand.service
    shown = [repr(each) for each in (stand.config, StateConfig(database_url=url), service)]
    shown += [f"{url} {url!r}", f"{stand.config.channels!s}", repr(service.reloader)]
    metrics = generate_latest(service.registry).decode()
    assert "pomogator_requests_total" in metrics
    shown.append(metrics)

    async with service.operators_channel() as channel:
        operations = pb_grpc.OperationsServiceStub(channel)
        asked = pb.ExplainChatCompletionRequest()
        asked.spec.model = MODEL
        asked.spec.messages.add().content.add().text = MESSAGES[0]["content"]
        asked.spec.messages[0].role = content.ROLE_USER
        explained = await operations.ExplainChatCompletion(asked)
        shown.append(str(explained))
        shown.append(str(await operations.ListChannels(pb.ListChannelsRequest())))
    assert PROMPT in explained.candidates[0].body

    for path in ("/metrics", "/debug", "/debug/vars", "/config", "/openapi.json", "/healthz"):
        async with stand.http.get(stand.url + path) as answer:
            assert answer.status == (200 if path in {"/openapi.json", "/healthz"} else 404)
            shown.append(await answer.text())

    for secret in (stand.key, PROVIDER_KEY, PASSWORD):
        assert secret not in "\n".join(shown)


_ANY: Any = None
_HOLDERS = {
    "call options": CallOptions(key=PROVIDER_KEY, request_id="r", deadline_s=1.0),
    "session": Session(key=PROVIDER_KEY, csrf_token="t", started_s=0, seen_s=0),
    "asker": TenantAsker(PROVIDER_KEY, "r"),
    "operator access": OperatorAccess(_ANY, PROVIDER_KEY, _ANY),
    "listeners": Listeners(
        stack=_ANY, service=_ANY, options=_ANY, tls=None, token=PROVIDER_KEY, bodies=_ANY
    ),
}


@pytest.mark.parametrize("name", _HOLDERS)
def test_what_holds_a_credential_does_not_show_it(name: str) -> None:
    """Its representation may get into a log, as part of another value's. Row 49."""
    assert PROVIDER_KEY not in f"{_HOLDERS[name]} {_HOLDERS[name]!r}"


class Sick(grpc.aio.ServerInterceptor):
    """An interceptor with a bug: its error quotes a secret."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ARG002
        """Fails."""
        raise RuntimeError(PROVIDER_KEY)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        "services.routing.attempts.order_routes",
        "gateway.http.call_options.idempotency_key",
    ],
)
async def test_an_error_that_quotes_secrets_shows_the_request_id_alone(
    open_stand: OpenStand, monkeypatch: pytest.MonkeyPatch, place: str, *, stream: bool
) -> None:
    """Wherever code fails, the caller gets the request's ID, and the log the place. Row 48."""
    stand = await open_stand()
    stand.errors |= {"request.failed", "call.failed"}
    secret = f"{PROVIDER_KEY} {PROMPT} {PASSWORD}"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(secret)

    with monkeypatch.context() as patched:
        patched.setattr(place, fail)
        reply = await stand.ask(stream=stream)

    assert (reply.status, reply.code) == (500, "internal_error")
    assert reply.headers["x-request-id"] in reply.error["message"]
    told = [*stand.log.of("request.failed"), *stand.log.of("call.failed")]
    assert [line["error"]["type"] for line in told] == ["RuntimeError"]
    assert PASSWORD not in reply.text + "\n".join(stand.log.text)
    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


async def test_a_failing_interceptor_shows_no_secret(open_stand: OpenStand) -> None:
    """Failures before any gRPC handler show no secret either. Row 48."""
    stand = await open_stand()
    stand.errors |= {"call.failed"}
    async with (
        listening(stand.service.register, "127.0.0.1:0", interceptors=[Sick()], grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        for kind in (channel.unary_unary, channel.unary_stream):
            rpc: Any = kind("/pomogator.models.v1.ModelService/ListModels")
            call = rpc(b"")
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert PROVIDER_KEY not in await call.details()
    assert len(stand.log.of("call.failed")) == 2
