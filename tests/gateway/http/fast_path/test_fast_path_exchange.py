from __future__ import annotations

import gc
import time

import pytest
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import body_timeout
from gateway.http.call_options import HeaderOptions
from gateway.http.fast_path.fast_path_exchange import FastPathExchange
from tests.gateway.conftest import KEY
from tests.gateway.http.fast_path.test_fast_path import FAST_PATH, ORDINARY
from tests.gateway.http.test_reply import RecordingWriter


def exchange_with(body: bytes | ApiError) -> FastPathExchange:
    """An exchange whose answer is only recorded."""
    head = FAST_PATH.read(ORDINARY)
    assert head is not None
    writer = RecordingWriter()
    return FastPathExchange(writer, "req-1", time.perf_counter(), sent=head, arrived=body)


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


async def test_neither_key_nor_prompt_is_in_a_representation() -> None:
    """It may get into a log."""
    exchange = exchange_with(b"prompt")
    exchange.sent.options = HeaderOptions.read(
        CIMultiDict({"Authorization": f"Bearer {KEY}"}), EdgeConfig()
    )
    shown = f"{exchange!r} {exchange.sent!r} {exchange.sent.options!r}"
    assert not [each for each in ("prompt", KEY, "Bearer") if each in shown]
