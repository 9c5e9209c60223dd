"""JSON of a relayed request: an edge with the service's structs sends it as bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ApiError
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from services.common.contract.relay_codec import STRUCTS
from services.domain.call_options import CallOptions
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, CompletionRequest, Tool
from services.rpc.listener import listening
from tests.stand import held_provider
from tests.stand.polling import until


def request(parameters_json: bytes) -> CompletionRequest:
    """A request with a tool that has these parameters."""
    spec = ChatCompletionSpec(
        model=held_provider.MODEL,
        messages=[Message(role="user", content=[TextPart(text="Hello")])],
        tools=[Tool(name="look", parameters_json=parameters_json)],
    )
    return CompletionRequest(spec=spec)


@pytest.mark.parametrize("bad", [b'{"a":', b'{"a":"\xff"}', b"\xff", b'"\xff"'])
async def test_a_bad_field_fails_its_call_alone(tmp_path: Path, bad: bytes) -> None:
    """As its caller's fault, before the provider is asked. The stream of calls goes on."""
    async with (
        held_provider.held_gateway(tmp_path) as (gateway, upstream, _),
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        open_channel(address) as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(links.choose)
        link = links.choose()
        assert link is not None
        assert link.codec is STRUCTS
        backend = RelayBackend(channel, links)
        call = CallOptions(request_id="req-1", key=gateway.key, deadline_s=30.0)

        with pytest.raises(ApiError) as whole:
            await backend.whole(request(bad), call, {})
        with pytest.raises(ApiError) as streamed:
            await anext(backend.stream(request(bad), call, {}))

        assert {whole.value.reason, streamed.value.reason} == {ErrorReason.INVALID_FIELD}
        assert upstream.requests == []
        assert (await backend.whole(request(b"{}"), call, {})).choices
        assert links.choose() is link
