from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.config import EdgeConfig
from tests.gateway.conftest import KEY, Edge, running_edge, scripted_channel
from tests.stand.service import ScriptedService, answer, choice_finished, finished, started

ORIGIN, OTHER = "https://app.example:8443", "https://evil.example"
URL = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


@pytest.fixture(params=[(ORIGIN, "null"), ("*",)], ids=["listed", "any"])
async def open_edge(
    request: pytest.FixtureRequest, script: ScriptedService, tmp_path: Path
) -> AsyncIterator[Edge]:
    """An edge that allows one origin, or any."""
    config = EdgeConfig(drain_timeout_s=0.1, cors_origins=request.param)
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
    ):
        yield edge


def allowed(request: pytest.FixtureRequest) -> str:
    """Return the CORS headers of an answer to `ORIGIN`."""
    return "*" if "any" in request.node.callspec.id else ORIGIN


async def test_a_preflight_request_needs_no_key(
    open_edge: Edge, request: pytest.FixtureRequest
) -> None:
    """The answer allows the method and the headers, for a limited time."""
    asked = {"Origin": ORIGIN, "Authorization": "", **PREFLIGHT}
    async with open_edge.http.options(URL, headers=asked) as response:
        assert await response.read() == b""
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == allowed(request)
    assert response.headers["Access-Control-Allow-Methods"] == "POST"
    assert (
        response.headers["Access-Control-Allow-Headers"]
        == (PREFLIGHT["Access-Control-Request-Headers"])
    )
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("mark", ["x", "Expect"], ids=["fast path", "aiohttp"])
async def test_every_answer_may_be_read(
    open_edge: Edge, request: pytest.FixtureRequest, mark: str
) -> None:
    """Whole answers, streams and errors of all kinds, with all their headers."""
    open_edge.script.answer = answer()
    open_edge.script.steps = [[started(), choice_finished(), finished()]]
    origin = {"Origin": ORIGIN, mark: "100-continue"}
    got = []
    for method, url, body, headers in (
        ("POST", URL, ASKED, {}),
        ("POST", URL, {**ASKED, "stream": True}, {}),
        ("POST", URL, {**ASKED, "model": 1}, {}),
        ("POST", URL, ASKED, {"Authorization": f"Bearer {KEY[:-1]}x"}),
        ("POST", "/v1/nothing", ASKED, {}),
        ("GET", "/v1/models", None, {}),
    ):
        async with open_edge.http.request(
            method, url, json=body, headers=origin | headers
        ) as response:
            await response.read()
        got.append(response.status)
        assert response.headers.getall("Access-Control-Allow-Origin") == [allowed(request)]
        assert response.headers["Access-Control-Expose-Headers"] == "*"
        assert response.headers.get("Vary") == (None if allowed(request) == "*" else "Origin")
    assert got == [200, 200, 400, 401, 404, 200]


@pytest.mark.parametrize("open_edge", [(ORIGIN,)], indirect=True)
@pytest.mark.parametrize("headers", [{"Origin": OTHER}, {"Origin": "null"}, {}])
async def test_other_origins_are_not_allowed(open_edge: Edge, headers: dict[str, str]) -> None:
    """Their answers are the same, without the headers; a cache must tell them apart."""
    open_edge.script.answer = answer()
    async with open_edge.http.options(URL, headers=PREFLIGHT | headers) as response:
        assert response.status == 405
    async with open_edge.http.post(URL, json=ASKED, headers=headers) as response:
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


async def test_a_preflight_request_for_an_unknown_url_is_404(open_edge: Edge) -> None:
    """OPTIONS that is no preflight request is refused as without CORS."""
    asked = {"Origin": ORIGIN, **PREFLIGHT}
    async with open_edge.http.options("/v1/nothing", headers=asked) as response:
        assert response.status == 404
    async with open_edge.http.options(URL, headers={"Origin": ORIGIN}) as response:
        assert response.status == 405


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
async def test_without_origins_there_is_no_cors(edge: Edge) -> None:
    """CORS is off by default."""
    asked = {"Origin": ORIGIN, **PREFLIGHT}
    async with edge.http.options(URL, headers=asked) as response:
        assert response.status == 405
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Vary" not in response.headers
