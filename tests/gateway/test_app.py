from __future__ import annotations

import pytest
from google.protobuf import timestamp_pb2
from pomogator.models.v1 import model_service_pb2 as models

from gateway.http.known_keys import KEY_FIRST_BYTES
from tests.gateway.conftest import Edge
from tests.gateway.http.raw import exchange
from tests.stand.service import answer

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
    """Each has the four members that its SDKs read, also from an older service."""
    edge.script.models = [CLAUDE]
    async with edge.http.get("/v1/models") as response:
        listed = await response.json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert RENDERED.items() <= model.items()
    assert (model["context_length"], model["pricing"]["prompt"]) == (None, "0")


@pytest.mark.parametrize("name", ["anthropic/claude-sonnet-4-5", "anthropic%2Fclaude-sonnet-4-5"])
async def test_a_models_name_may_contain_slashes(edge: Edge, name: str) -> None:
    """SDKs escape them, other clients do not."""
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
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v1", 404, "unknown_url"),
        ("POST", "/v1/completion", 404, "unknown_url"),
        ("POST", "/v1/chat/completions//", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_route_is_refused_in_json(
    edge: Edge, method: str, path: str, status: int, code: str
) -> None:
    """The error body and the headers are those of the API."""
    async with edge.http.request(method, path) as response:
        body = await response.json()
    assert (response.status, body["error"]["code"]) == (status, code)
    assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/chat/completions", "Did you mean POST /v1/chat/completions?"),
        ("/v1/v1/chat/completions", "Did you mean POST /v1/chat/completions?"),
        ("/v1/model", "Did you mean GET /v1/models?"),
        ("/ready", "Did you mean GET /readyz?"),
        ("/v1/images/generations", "There is GET /, "),
        (
            "/nothing-like-it",
            "GET /v1/balance, POST /v1/chat/completions, POST /v1/completions, GET /v1/credits, ",
        ),
    ],
)
async def test_a_404_names_the_nearest_url_or_all(edge: Edge, path: str, wanted: str) -> None:
    """It does not quote the path."""
    async with edge.http.post(path) as response:
        body = await response.json()
    assert response.status == 404
    assert wanted in body["error"]["message"]
    assert path not in body["error"]["message"].replace(wanted, "")


async def test_a_405_names_the_methods(edge: Edge) -> None:
    """Also in its text, which is all that most SDKs show."""
    async with edge.http.delete("/v1/models") as response:
        message = (await response.json())["error"]["message"]
    assert message == "This URL does not take that method, but GET, HEAD."


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat"])
async def test_a_404_of_a_base_url_lists_all(edge: Edge, path: str) -> None:
    """A client whose base URL lacks the rest of a path is told every path, and not any one."""
    async with edge.http.get(path) as response:
        message = (await response.json())["error"]["message"]
    assert response.status == 404
    assert "Did you mean" not in message
    assert "GET /v1/balance, POST /v1/chat/completions, " in message


@pytest.mark.parametrize("more", ["/", "?a=b", "/?a=b"])
@pytest.mark.parametrize("header", ["X", "Expect"])
async def test_a_slash_or_a_query_changes_nothing(edge: Edge, more: str, header: str) -> None:
    """Completions on both paths, and models, accept them."""
    edge.script.models, edge.script.answer = [CLAUDE], answer()
    async with edge.http.get(f"/v1/models{more}") as response:
        (model,) = (await response.json())["data"]
        assert RENDERED.items() <= model.items()
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    url, headers = f"/v1/chat/completions{more}", {header: "100-continue"}
    async with edge.http.post(url, json=asked, headers=headers) as response:
        assert (response.status, (await response.json())["object"]) == (200, "chat.completion")


@pytest.mark.parametrize(
    "path", ["/", "/health", "/healthz", "/readyz", "/openapi.json", "/v1/models", "/v1/balance"]
)
async def test_head_is_served_wherever_get_is(edge: Edge, path: str) -> None:
    """It has the status and the headers of GET, and no body."""
    edge.script.models = [CLAUDE]
    async with edge.http.get(path) as response:
        got = await response.read()
    async with edge.http.head(path) as head:
        assert await head.read() == b""
    assert head.status == response.status
    assert head.headers.get("Content-Length") == str(len(got))
    assert head.headers["Content-Type"] == response.headers["Content-Type"]


async def test_the_root_describes_the_gateway(edge: Edge) -> None:
    """It needs no key, and shows no version."""
    async with edge.http.get("/", headers={"Authorization": ""}) as response:
        body = await response.json()
    assert (response.status, body["service"], body["base_url"]) == (200, "pomogator", "/v1")
    for path in ("openapi", "liveness", "readiness"):
        async with edge.http.get(body[path]) as response:
            assert response.status == 200


async def test_every_answer_has_the_common_headers(edge: Edge) -> None:
    """They are request ID, time, and headers for browsers and caches. None has a version."""
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


async def test_a_large_body_of_a_transcoded_method_is_not_read(edge: Edge) -> None:
    """Its key is not known. The declared length is enough to refuse it."""
    received = await exchange(
        edge.host,
        edge.port,
        b"POST /v1/account/keys HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: %b\r\nContent-Length: %d\r\n\r\n"
        % (edge.http.headers["Authorization"].encode(), KEY_FIRST_BYTES + 1),
    )
    assert received is not None
    assert received.status == 413
