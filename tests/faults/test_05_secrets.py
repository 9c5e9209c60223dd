"""b.5: secrets in what is shown."""

from __future__ import annotations

from pomogator.chat.v1 import content_pb2 as content
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc
from prometheus_client import generate_latest

from services.config import Secret, StateConfig
from tests.faults.conftest import OpenWorld
from tests.faults.world import MESSAGES, MODEL, PROMPT, PROVIDER_KEY, fitting

PASSWORD = "canary-password-77"


async def test_049_nothing_that_is_shown_is_secret(open_world: OpenWorld) -> None:
    """Neither what a configuration looks like, nor metrics, nor what operators are told."""
    url = Secret(f"postgresql://u:{PASSWORD}@h/d")
    world = await open_world()
    world.play(fitting)
    assert (await world.ask()).status == 200
    service = world.service
    shown = [repr(each) for each in (world.config, StateConfig(database_url=url), service)]
    shown += [f"{url} {url!r}", f"{world.config.channels!s}", repr(service.reloader)]
    metrics = generate_latest(service.metrics.registry).decode()
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
        async with world.http.get(world.url + path) as answer:
            assert answer.status == (200 if path in {"/openapi.json", "/healthz"} else 404)
            shown.append(await answer.text())

    for secret in (world.key, PROVIDER_KEY, PASSWORD):
        assert secret not in "\n".join(shown)
