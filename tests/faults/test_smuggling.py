"""Behind a proxy the edge reads as many requests as the proxy passed on, and the same ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import CHARGE, PATH, TEXT, FaultStand, fitting
from tests.faults.test_http import SMUGGLED
from tests.stand.nginx import NGINX, Nginx, running_nginx

WITHIN = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\nX-Request-Id: within\r\n\r\n"
"""A request that stands in the body of another one, or behind it."""

ALIVE = '{"status":"alive"}'

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(WITHIN)
FRAMINGS: dict[str, tuple[bytes, bytes]] = {
    **{how: (lines, WITHIN) for how, lines in SMUGGLED.items()},
    "a good length": (LENGTH, WITHIN),
    "good chunks": (CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(WITHIN), WITHIN)),
    "nothing before it": (b"", WITHIN),
    "a length of nothing": (b"Content-Length: 0\r\n", WITHIN),
    "a length and no chunks": (LENGTH + CHUNKED, b"0\r\n\r\n" + WITHIN),
    "no chunks and a length": (CHUNKED + LENGTH, b"0\r\n\r\n" + WITHIN),
    "chunked twice": (CHUNKED * 2, b"0\r\n\r\n" + WITHIN),
    "chunked and something else": (CHUNKED + b"Transfer-Encoding: x\r\n", b"0\r\n\r\n" + WITHIN),
    "chunked in capitals": (LENGTH + b"Transfer-Encoding: CHUNKED\r\n", b"0\r\n\r\n" + WITHIN),
    "chunked after a tab": (LENGTH + b"Transfer-Encoding:\tchunked\r\n", b"0\r\n\r\n" + WITHIN),
    "chunked after a VT": (LENGTH + b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + WITHIN),
    "chunked after a bare LF": (LENGTH[:-2] + b"\n" + CHUNKED, b"0\r\n\r\n" + WITHIN),
    "chunked in quotes": (LENGTH + b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n" + WITHIN),
    "an underscore for a hyphen": (LENGTH + b"Transfer_Encoding: chunked\r\n", WITHIN),
    "a space before the colon": (LENGTH + b"Transfer-Encoding : chunked\r\n", WITHIN),
    "equal lengths": (LENGTH * 2, WITHIN),
    "lengths in a list": (LENGTH[:-2] + b", 0\r\n", WITHIN),
    "a length in hexadecimal": (b"Content-Length: 0x%x\r\n" % len(WITHIN), WITHIN),
    "a length with zeros": (b"Content-Length: 000%d\r\n" % len(WITHIN), WITHIN),
    "a chunk's extension": (CHUNKED, b"0;a=b\r\n\r\n" + WITHIN),
    "a chunk's extension with a line": (CHUNKED, b"0;a\nb\r\n\r\n" + WITHIN),
    "a chunk without CR": (CHUNKED, b"0\n\n" + WITHIN),
    "a signed chunk": (CHUNKED, b"+0\r\n\r\n" + WITHIN),
    "a chunk in 0x": (CHUNKED, b"0x0\r\n\r\n" + WITHIN),
    "an endless chunk": (CHUNKED, b"f" * 20 + b"\r\n" + WITHIN),
    "trailers": (CHUNKED, b"0\r\nContent-Length: 9\r\n\r\n" + WITHIN),
    "a chunk longer than it says": (CHUNKED, b"1\r\nab\r\n0\r\n\r\n" + WITHIN),
    "an upgrade": (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", WITHIN),
    "a hop's header": (b"Connection: Content-Length\r\n" + LENGTH, WITHIN),
    "an expectation": (b"Expect: 100-continue\r\n" + LENGTH, WITHIN),
}

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")


async def say(proxy: Nginx, sent: bytes) -> bytes:
    """All bytes from the proxy until it closes the connection, or is silent for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(sent)
    writer.write_eof()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def seen(stand: FaultStand) -> list[tuple[int, str, str]]:
    """The requests that the edge has read, as the proxy's log would have them."""
    return [
        (line["status"], line["method"], line["path"]) for line in stand.log.of("request.ended")
    ]


@pytest.mark.parametrize("buffering", [True, False], ids=["buffered", "passed on"])
async def test_no_request_is_smuggled_past_a_proxy(
    open_stand: OpenStand, tmp_path: Path, *, buffering: bool
) -> None:
    """However a body is framed, proxy and edge agree on where it ends; the next is served.

    Row 2.
    """
    stand = await open_stand()
    stand.play(fitting)
    folder = tmp_path / "nginx"
    folder.mkdir()
    counts: dict[str, int] = {}
    async with running_nginx(folder, stand.address, buffering=buffering) as proxy:
        for how, (lines, body) in FRAMINGS.items():
            before, passed = len(seen(stand)), len(proxy.passed)
            # The edge itself refuses this with 415, and so 400 is its parser's alone.
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            key = f"Authorization: Bearer {stand.key}\r\n"

            said = await say(proxy, (head + key).encode() + lines + b"\r\n" + body)

            # What the parser refuses may have no line in the log: one a second is enough.
            through = [each for each in proxy.passed[passed:] if each[0] != 400]
            through = [each for each in through if each[-1] != "/healthz"]
            here = [each for each in seen(stand)[before:] if each[0] != 400]
            assert here == through, how
            counts[how] = len(here)
            assert said.count(b"HTTP/1.1 ") <= 3, how
            # On the connection that the proxy keeps the next one gets its own answer.
            async with stand.http.get(f"http://127.0.0.1:{proxy.port}/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, ALIVE), how
        through_proxy = f"http://127.0.0.1:{proxy.port}{PATH}"
        asked = {"model": "house/model", "messages": [{"role": "user", "content": "Hi"}]}
        async with stand.http.post(through_proxy, json={**asked, "stream": True}) as answer:
            assert (await stand.read(answer)).content == TEXT
    assert (counts["a good length"], counts["good chunks"], counts["nothing before it"]) == (
        1,
        1,
        2,
    )
    assert await stand.charged() == (1, CHARGE)
