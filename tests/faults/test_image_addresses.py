"""Images at addresses inside our network, or of third parties."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.faults.conftest import OpenStand
from tests.faults.dialect_answers import FORMS, DialectAnswers
from tests.faults.fault_stand import CHARGE

HERE = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "017700000001",
    "0",
    "localhost.",
    "[::1]",
    "[::ffff:7f00:1]",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "a@127.0.0.1",
    "example.com#@127.0.0.1",
)
"""Names of this machine, for one parser or another. The port is that of a server that listens."""

ELSEWHERE = (
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fec0::1]/",
    "http://[fd00:ec2::254]/",
    "http://100.64.0.1/",
    "http://10.0.0.1:6443/",
    "http://redis.internal:6379/",
    "http://rebinding.example/a.png",
)
Connect = Callable[[Any, Any], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.dialect)
async def test_no_image_address_is_resolved_or_fetched(
    open_stand: OpenStand, form: DialectAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture's address is passed on: the gateway looks up no name and opens no connection.

    So neither names that lead elsewhere the second time, nor redirects, nor servers that never
    answer or never stop can do anything here, and no server is flooded through the gateway.

    Rows 39, 42 to 45 of the fault catalogue.
    """
    loop = asyncio.get_running_loop()
    stand = await open_stand(first={"dialect": form.dialect})
    stand.play(form.fitting, second=form.fitting)
    assert (await stand.ask()).status == 200
    visited: list[Any] = []
    looked_up: list[Any] = []
    ours = {stand.address[1], stand.first.port}
    connect: Connect = loop.sock_connect
    look_up: Callable[..., Awaitable[Any]] = loop.getaddrinfo

    async def connecting(sock: Any, address: Any) -> None:
        visited.append(address)
        await connect(sock, address)

    async def looking_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return await look_up(host, *args, **kwargs)

    monkeypatch.setattr(loop, "sock_connect", connecting)
    monkeypatch.setattr(loop, "getaddrinfo", looking_up)
    served = 1
    victim = await asyncio.start_server(lambda _, writer: visited.append(writer), "127.0.0.1", 0)
    async with victim:
        port = victim.sockets[0].getsockname()[1]
        for url in (*(f"http://{host}:{port}/a.png" for host in HERE), *ELSEWHERE):
            part = {"type": "image_url", "image_url": {"url": url}}
            reply = await stand.ask(messages=[{"role": "user", "content": [part]}])
            assert reply.status in {200, 400}, url
            if reply.status == 200:
                served += 1
                sent = stand.first.requests[-1].body.decode()
                assert url in sent.encode().decode("unicode_escape") or url in sent

    assert {address[1] for address in visited} <= ours
    assert set(looked_up) <= {"127.0.0.1"}
    assert served > len(ELSEWHERE)
    assert len(stand.first.requests) == served
    assert await stand.charged() == (served, served * CHARGE)
