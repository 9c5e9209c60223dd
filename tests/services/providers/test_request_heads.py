"""Heads of requests, kept with their target."""

from __future__ import annotations

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.providers.base import Target, UpstreamRequest
from services.providers.request_heads import HEADS_MAX, new_head
from tests.services.providers.word_dialect import Plain


def test_headers_that_vary_fill_no_memory() -> None:
    """A target keeps a bounded number of heads, among them the last one."""
    channel = ChannelConfig(name="a", dialect="plain", base_url="http://a.test/v1")
    target = Target(channel=channel, model="m", public_model="m", capabilities=Capabilities())

    for number in range(3 * HEADS_MAX):
        traced = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
        request = UpstreamRequest(path="/chat", body=b"{}", streamed=True, headers=traced)
        head = new_head((number,), request, target, Plain())
        assert traced["traceparent"].encode() in head.text
        assert target.heads[(number,)] is head

    assert len(target.heads) <= HEADS_MAX
