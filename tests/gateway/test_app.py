from __future__ import annotations

import pytest
from google.protobuf import timestamp_pb2
from pomogator.models.v1 import model_service_pb2 as models

from tests.gateway.conftest import Edge
from tests.gateway.http.raw import exchange

CLAUDE = models.Model(
    name="anthropic/claude-sonnet-4-5",
    owner="anthropic",
    create_time=timestamp_pb2.Timestamp(seconds=1_706_745_600),
)
RENDERED = {
    "id": "anthropic/claude-sonnet-4-5",
    "object": "model",
    "created": 1_706_745_600,
    "owned_by": "anthropic",
}


async def test_models_are_listed_in_openais_form(edge: Edge) -> None:
    """With the four members that its SDKs read."""
    edge.script.models = [CLAUDE]
    async with edge.http.get("/v1/models") as response:
        assert await response.json() == {"object": "list", "data": [RENDERED]}


@pytest.mark.parametrize("name", ["anthropic/claude-sonnet-4-5", "anthropic%2Fclaude-sonnet-4-5"])
async def test_a_models_name_may_contain_slashes(edge: Edge, name: str) -> None:
    """Escaped or not: SDKs escape them."""
    edge.script.models = [CLAUDE]
    received = await exchange(
        edge.host,
        edge.port,
        f"GET /v1/models/{name} HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: {edge.http.headers['Authorization']}\r\n\r\n".encode(),
    )
    assert received is not None
    assert received.status == 200


async def test_an_unknown_model_is_not_found(edge: Edge) -> None:
    """The service's 404 has OpenAI's code."""
    async with edge.http.get("/v1/models/nobody/knows") as response:
        body = await response.json()
    assert (response.status, body["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a/b"])
async def test_models_need_a_key(edge: Edge, path: str) -> None:
    """The list is for callers with a key alone."""
    async with edge.http.get(path, headers={"Authorization": "Bearer x"}) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/completions", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_route_is_refused_in_json(
    edge: Edge, method: str, path: str, status: int, code: str
) -> None:
    """With the API's own error body and headers."""
    async with edge.http.request(method, path) as response:
        body = await response.json()
    assert (response.status, body["error"]["code"]) == (status, code)
    assert ("Allow" in response.headers) == (status == 405)


async def test_every_answer_has_the_common_headers(edge: Edge) -> None:
    """Request id, time, and headers for browsers and caches; no version."""
    async with edge.http.get("/v1/models") as response:
        headers = response.headers
    assert headers["x-request-id"].startswith("req-")
    assert headers["openai-processing-ms"].isdecimal()
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "pomogator"


@pytest.mark.parametrize("asked", ["a" * 65, "a b", "{}", "é"])
async def test_an_odd_request_id_is_replaced(edge: Edge, asked: str) -> None:
    """It is not fit for logs."""
    async with edge.http.get("/v1/models", headers={"X-Request-Id": asked}) as response:
        assert response.headers["x-request-id"].startswith("req-")


async def test_probes_show_liveness_and_readiness(edge: Edge) -> None:
    """The edge is ready when the service is."""
    async with edge.http.get("/healthz") as response:
        assert response.status == 200
    for ready, status in ((True, 200), (False, 503)):
        edge.script.ready = ready
        async with edge.http.get("/readyz") as response:
            assert response.status == status
