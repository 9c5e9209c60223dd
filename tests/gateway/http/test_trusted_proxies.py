from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.http.auth_throttle import FAILURES
from gateway.http.trusted_proxies import TrustedProxies
from tests.gateway.conftest import Edge, running_edge, scripted_channel
from tests.gateway.http.raw import GOOD, read_answer
from tests.gateway.http.test_client_connection import connected
from tests.stand.balancers import PROGRAMS, running_balancer
from tests.stand.service import ScriptedService

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])
CLIENT, INVENTED = "203.0.113.7", "198.51.100.1"


def headers(**values: str) -> CIMultiDict[str]:
    """Headers; `x_forwarded_for` is `X-Forwarded-For`, and a line in it begins another one."""
    return CIMultiDict(
        (name.replace("_", "-"), line)
        for name, value in values.items()
        for line in value.split("\n")
    )


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (CLIENT, CLIENT),
        (f"{INVENTED}, {CLIENT}", CLIENT),
        (f"{INVENTED}\n{CLIENT}", CLIENT),
        (f"{INVENTED}, {CLIENT}, 10.1.2.3,10.4.5.6", CLIENT),
        ("10.1.2.3, 10.4.5.6", "10.1.2.3"),
        (f"{CLIENT}:4711", CLIENT),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"{CLIENT}, unknown", "10.0.0.1"),
        (f"{CLIENT}, unknown, 10.1.2.3", "10.1.2.3"),
        (f"{CLIENT}, ,", CLIENT),
        ("", "10.0.0.1"),
        ("nonsense", "10.0.0.1"),
        (", ".join([CLIENT, *["10.1.2.3"] * 500]), "10.1.2.3"),
    ],
)
def test_the_rightmost_address_that_is_no_proxys_counts(value: str, client: str) -> None:
    """Clients can invent every address on its left."""
    assert PROXIES.client("10.0.0.1", headers(x_forwarded_for=value)) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={INVENTED}, for={CLIENT};proto=https;by=10.0.0.9", CLIENT),
        (f'proto=https; for="{CLIENT}:4711"', CLIENT),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        (f'for={INVENTED};host="a,b", for={CLIENT}', CLIENT),
        (f"for={CLIENT}\nfor=10.1.2.3", CLIENT),
        (f"for={CLIENT}, for=_hidden", "10.0.0.1"),
        (f"for={CLIENT}, proto=https", "10.0.0.1"),
        ("for=unknown", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_by_its_rfc(value: str, client: str) -> None:
    """RFC 7239: parameters in any order and case, quoted strings, addresses with a port."""
    assert PROXIES.client("10.0.0.1", headers(forwarded=value)) == client


def test_headers_that_disagree_name_no_client() -> None:
    """The proxy sends one of them, and the client may have sent the other one."""
    both = headers(x_forwarded_for=CLIENT, forwarded=f"for={INVENTED}")
    assert PROXIES.client("10.0.0.1", both) == "10.0.0.1"
    agreed = headers(x_forwarded_for=CLIENT, forwarded=f"for={CLIENT}")
    assert PROXIES.client("10.0.0.1", agreed) == CLIENT


@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::1", ""])
def test_other_peers_are_clients_themselves(peer: str) -> None:
    """Their headers are ignored."""
    assert PROXIES.client(peer, headers(x_forwarded_for=INVENTED)) == peer
    assert TrustedProxies().client("10.0.0.1", headers(x_forwarded_for=INVENTED)) == "10.0.0.1"


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_value_of_a_header_has_an_address(forwarded_for: str, forwarded: str) -> None:
    """No value raises an error."""
    assert PROXIES.client("10.0.0.1", headers(x_forwarded_for=forwarded_for, forwarded=forwarded))


@pytest.fixture
async def edge_behind_proxy(script: ScriptedService, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that trusts this machine as its proxy."""
    config = EdgeConfig(drain_timeout_s=0.1, trusted_proxies=("127.0.0.1",))
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
    ):
        yield edge


@pytest.mark.parametrize("mark", [b"", b" "], ids=["fast path", "aiohttp"])
async def test_the_throttle_counts_clients_behind_a_proxy(
    edge_behind_proxy: Edge, mark: bytes
) -> None:
    """One that guesses keys gets 429, another one behind the same proxy still gets 401."""
    statuses: Counter[tuple[bytes, int]] = Counter()
    async with connected(edge_behind_proxy) as (reader, writer):
        for client in (CLIENT.encode(), INVENTED.encode()):
            line = b"Host: a%b\r\nX-Forwarded-For: 192.0.2.1, %b\r\n" % (mark, client)
            wrong = GOOD.replace(b"sk-pg-0", b"sk-pg-1").replace(b"Host: a\r\n", line)
            for _ in range(FAILURES + 5):
                writer.write(wrong)
                answer = await read_answer(reader)
                assert answer is not None
                statuses[client, answer.status] += 1

    assert statuses == {
        (client.encode(), status): count
        for client in (CLIENT, INVENTED)
        for status, count in ((401, FAILURES), (429, 5))
    }


@pytest.mark.parametrize("name", PROGRAMS)
async def test_real_proxies_name_their_clients(
    edge_behind_proxy: Edge, tmp_path: Path, name: str
) -> None:
    """They are configured as documented. A client that invents addresses is still throttled."""
    if PROGRAMS[name] is None:
        pytest.skip(f"there is no {name} on this machine")
    statuses: Counter[tuple[str, int]] = Counter()
    where = edge_behind_proxy.host, edge_behind_proxy.port
    asked = {"model": "m", "messages": []}
    async with running_balancer(name, tmp_path, where, (1,)) as port, asyncio.timeout(60):
        url = f"http://127.0.0.1:{port}/1/v1/chat/completions"
        for client in ("127.0.0.2", "127.0.0.3"):
            connector = aiohttp.TCPConnector(local_addr=(client, 0))
            async with aiohttp.ClientSession(connector=connector) as http:
                for number in range(FAILURES + 5):
                    invented = f"198.51.100.{number}"
                    headers = {
                        "Authorization": "Bearer sk-pg-wrong",
                        "X-Forwarded-For": invented,
                        "Forwarded": f"for={invented}",
                    }
                    async with http.post(url, json=asked, headers=headers) as response:
                        statuses[client, response.status] += 1

    assert statuses == {
        (client, status): count
        for client in ("127.0.0.2", "127.0.0.3")
        for status, count in ((401, FAILURES), (429, 5))
    }
