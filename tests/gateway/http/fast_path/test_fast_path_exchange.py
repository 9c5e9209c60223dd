from __future__ import annotations

import gc
import time

import pytest
from multidict import CIMultiDict

from gateway.errors import ApiError
from gateway.http.body import body_timeout
from gateway.http.call_options import SentHeaders
from gateway.http.fast_path.fast_path_exchange import FastPathExchange
from gateway.http.reply import Reply
from tests.gateway.http.fast_path.test_fast_path import ENDPOINT
from tests.gateway.http.test_reply import RecordingWriter


def exchange_with(body: bytes | ApiError) -> FastPathExchange:
    """An exchange whose answer is only recorded."""
    reply = Reply(RecordingWriter(), "req-1", time.perf_counter())
    return FastPathExchange(ENDPOINT, SentHeaders(headers=CIMultiDict(), caller=""), reply, body)


async def test_a_body_that_arrived_is_returned() -> None:
    """The error of one that did not arrive is raised."""
    assert await exchange_with(b"{}").body() == b"{}"
    with pytest.raises(ApiError) as refused:
        await exchange_with(body_timeout()).body()
    assert refused.value.status == 408


async def test_a_body_is_not_kept() -> None:
    """It may be megabytes, and the answer may take minutes."""
    exchange = exchange_with(b"{}")
    assert await exchange.body() == b"{}"
    assert b"{}" not in gc.get_referents(exchange)
