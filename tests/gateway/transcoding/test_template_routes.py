from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from yarl import URL

from gateway.config import EdgeConfig
from services.rpc.local_channel import local_channel
from tests.gateway.transcoding.sample_service import SERVICE, CompiledService, edge, no_metadata

Failure = tuple[int, str | None, str]


@pytest.fixture
async def client(sample: CompiledService) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of our edge, in front of the service."""
    async with (
        local_channel(sample.register) as channel,
        edge(sample, channel, metadata_of=no_metadata) as url,
        aiohttp.ClientSession(url) as session,
    ):
        yield session


async def ask(client: aiohttp.ClientSession, verb: str, target: str, body: str = "") -> Any:
    """Send a request. Return status and JSON of the answer, or its lines if it is a stream."""
    async with client.request(
        verb,
        URL(target, encoded=True),
        data=body.encode() or None,
        headers={"Content-Type": "application/json"},
    ) as response:
        text = await response.text()
        if response.content_type == "application/x-ndjson":
            return response.status, [json.loads(line) for line in text.splitlines()]
        return response.status, json.loads(text)


def wrong(answer: tuple[int, Any]) -> Failure:
    """Return status, parameter and code of a failure."""
    status, body = answer
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return status, body["error"]["param"], body["error"]["code"]


async def test_a_request_has_fields_of_path_query_and_body(client: aiohttp.ClientSession) -> None:
    """The request message has the fields of all three."""
    target = "/v1/shelves/a/things?tags=x&tags=y&int64_value=-7&labels"
    body = '{"name":"n","inner":{"tags":["t"]}}'

    assert wrong(await ask(client, "POST", target, body)) == (400, "labels", "invalid_value")
    status, thing = await ask(client, "POST", target.removesuffix("&labels"), body)

    assert status == 200
    assert thing["parent"] == "a"
    assert thing["tags"] == ["x", "y"]
    assert thing["int64_value"] == "-7"
    assert thing["inner"]["inner"]["tags"] == ["t"]


async def test_zeros_are_printed(client: aiohttp.ClientSession) -> None:
    """A field without presence is printed also if it is zero, one with presence only if set."""
    _, thing = await ask(client, "GET", "/v1/things/a")

    assert thing["int32_value"] == 0
    assert thing["kind"] == "KIND_UNSPECIFIED"
    assert "nickname" not in thing
    assert "inner" not in thing


async def test_the_response_may_be_one_field(client: aiohttp.ClientSession) -> None:
    """The field is an array, a number, a message or null."""
    assert await ask(client, "PUT", "/v1/tags/a", '["x","y"]') == (200, ["x", "y"])
    assert await ask(client, "PUT", "/v1/counts/a", "5") == (200, 5)
    assert await ask(client, "DELETE", "/v1/things/a") == (200, None)
    status, inner = await ask(client, "DELETE", "/v1/things/a?inner.count=3")
    assert (status, inner["count"]) == (200, 3)


@pytest.mark.parametrize(
    ("verb", "target", "body", "answer"),
    [
        ("POST", "/v1/text", '"a"', "a"),
        ("PUT", "/v1/text", '"a"', "a"),
        ("POST", "/v1/text", "", ""),
        ("GET", "/v1/numbers/7", "", "7"),
        ("POST", "/v1/time", '"2026-01-02T03:04:05+01:00"', "2026-01-02T02:04:05Z"),
        ("POST", "/v1/object", '{"a":[1,null,{}]}', {"a": [1, None, {}]}),
        ("POST", "/v1/list", '[1,"b"]', [1, "b"]),
        ("POST", "/v1/anything", '{"a":true}', {"a": True}),
        ("POST", "/v1/anything", "null", None),
    ],
)
async def test_well_known_types_as_requests_have_their_json_form(
    client: aiohttp.ClientSession, verb: str, target: str, body: str, answer: object
) -> None:
    """A wrapper is its value, and so is the response."""
    assert await ask(client, verb, target, body) == (200, answer)


async def test_the_path_overrides_the_body(client: aiohttp.ClientSession) -> None:
    """A body cannot get around a check of the path."""
    _, thing = await ask(client, "POST", "/v1/shelves/a:undo", '{"name":"b"}')

    assert thing["name"] == "a"


async def test_a_stream_is_a_line_for_each_message(client: aiohttp.ClientSession) -> None:
    """The lines are JSON objects with `result`."""
    status, lines = await ask(client, "GET", "/v1/watch/a?int32_value=3")

    assert status == 200
    assert [line["result"]["int32_value"] for line in lines] == [0, 1, 2]


async def test_a_stream_that_fails_ends_with_an_error_line(client: aiohttp.ClientSession) -> None:
    """A failure before the first message has its own status."""
    status, lines = await ask(client, "GET", "/v1/watch/a?int32_value=1&left=NOT_FOUND")
    early = await ask(client, "GET", "/v1/watch/a?left=NOT_FOUND")

    assert status == 200
    assert list(lines[0]) == ["result"]
    assert lines[1]["error"]["code"] == "not_found"
    assert wrong(early) == (404, None, "not_found")


async def test_a_stream_is_not_buffered(sample: CompiledService) -> None:
    """Each line is sent at once, and a client that disconnects ends the call."""
    more, left = asyncio.Event(), asyncio.Event()

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield request
            await more.wait()
            yield request
            await asyncio.Event().wait()
        finally:
            left.set()

    def register(server: Any) -> None:
        sample.register(server)
        server.add_registered_method_handlers(SERVICE, {"WatchThing": _streaming(watch)})

    async with (
        local_channel(register) as channel,
        edge(sample, channel, metadata_of=no_metadata) as url,
        aiohttp.ClientSession(url) as client,
    ):
        async with client.get("/v1/watch/a") as response:
            assert json.loads(await response.content.readline())["result"]["name"] == "a"
            more.set()
            assert json.loads(await response.content.readline())["result"]["name"] == "a"
            response.close()
        await left.wait()


async def test_a_client_that_does_not_read_a_stream_is_cut_off(sample: CompiledService) -> None:
    """The call ends with the connection."""
    ended = asyncio.Event()

    async def watch(request: Any, _: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield request
        finally:
            ended.set()

    def register(server: Any) -> None:
        server.add_registered_method_handlers(SERVICE, {"WatchThing": _streaming(watch)})

    config = EdgeConfig(write_timeout_s=0.1)
    async with (
        local_channel(register) as channel,
        edge(sample, channel, config, metadata_of=no_metadata) as url,
        aiohttp.ClientSession(url) as client,
        client.get("/v1/watch/a"),
        asyncio.timeout(10),
    ):
        await ended.wait()


def _streaming(handler: Any) -> Any:
    return grpc.unary_stream_rpc_method_handler(handler)


@pytest.mark.parametrize(
    ("verb", "target", "body", "failure"),
    [
        ("GET", "/v1/nothing", "", (404, None, "unknown_url")),
        ("DELETE", "/v1/shelves/a:undo", "", (405, None, "method_not_allowed")),
        ("GET", "/v1/things/a?stranger=1", "", (400, "stranger", "invalid_value")),
        ("GET", "/v1/things/a?int32_value=x", "", (400, "int32_value", "invalid_value")),
        ("GET", "/v1/things/a?name=b", "", (400, "name", "invalid_value")),
        ("GET", "/v1/things/%FF", "", (400, "name", "invalid_value")),
        ("GET", "/v1/things/a?tags=%FF", "", (400, "query", "invalid_value")),
        ("GET", "/v1/things/a?" + "tags=a&" * 1001, "", (400, "query", "invalid_value")),
        ("GET", "/v2/a/x/KIND_ROUND", "", (400, "int32_value", "invalid_value")),
        ("PATCH", "/v1/shelves/a?tags=b", "{}", (400, "tags", "invalid_value")),
        ("PATCH", "/v1/shelves/a", "[]", (400, None, "invalid_json")),
        ("PATCH", "/v1/shelves/a", "{", (400, None, "invalid_json")),
        ("PATCH", "/v1/shelves/a", '{"name":NaN}', (400, None, "invalid_json")),
        ("PATCH", "/v1/shelves/a", '{"int32_value":' + "1" * 5000 + "}",
         (400, None, "invalid_json")),
        ("PATCH", "/v1/shelves/a", '{"name":1,"name":2}', (400, None, "duplicate_key")),
        ("PATCH", "/v1/shelves/a", '{"inner":' * 100 + "1" + "}" * 100,
         (400, None, "json_too_deep")),
        ("PATCH", "/v1/shelves/a", '{"inner":{"stranger":1}}',
         (400, "inner.stranger", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"inner":{"count":"x"}}',
         (400, "inner.count", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"inner":[]}', (400, "inner", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"inners":[{},[]]}', (400, "inners[1]", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"bytes_value":"*"}', (400, "bytes_value", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"bytes_wrapper":"*"}',
         (400, "bytes_wrapper", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"labels":[]}', (400, "labels", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"name":"\\ud800"}', (400, None, "invalid_encoding")),
        ("PATCH", "/v1/shelves/a", '{"int64_value":1,"int64Value":1}',
         (400, "int64_value", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"by_number":{"1":"a","1.0":"b"}}',
         (400, "by_number", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"inners":[{"count":"+1"}]}',
         (400, "inners[0].count", "invalid_value")),
        ("GET", "/v1/things/a?int64_value=1&int64Value=1", "",
         (400, "int64_value", "invalid_value")),
        ("DELETE", "/v1/things/a?inner.top_kind=1&inner.topKind=1", "",
         (400, "inner.top_kind", "invalid_value")),
        ("PATCH", "/v1/shelves/a", '{"\\ud800":1}', (400, None, "invalid_encoding")),
        ("PATCH", "/v1/shelves/a", '{"kind":"KIND\\ud800"}', (400, None, "invalid_encoding")),
        ("PATCH", "/v1/shelves/a", '{"inner":{"a\\udc00":1}}', (400, None, "invalid_encoding")),
        ("PATCH", "/v1/shelves/a", '{"labels":{"\\ud800":"a"}}', (400, None, "invalid_encoding")),
        ("POST", "/v1/object", '{"\\ud800":1}', (400, None, "invalid_encoding")),
        ("POST", "/v1/text", "1", (400, None, "invalid_json")),
        ("POST", "/v1/text", '{"value":"a"}', (400, None, "invalid_json")),
        ("POST", "/v1/text", "null", (400, None, "invalid_json")),
        ("POST", "/v1/text", '"\\ud800"', (400, None, "invalid_encoding")),
        ("PUT", "/v1/text", '{"value":"a"}', (400, None, "invalid_json")),
        ("POST", "/v1/time", '"2026-1-02T03:04:05Z"', (400, None, "invalid_json")),
        ("POST", "/v1/object", "[]", (400, None, "invalid_json")),
        ("POST", "/v1/list", "{}", (400, None, "invalid_json")),
        ("POST", "/v1/object", '{"a":' * 900 + "1" + "}" * 900, (400, None, "invalid_json")),
        ("GET", "/v1/numbers/x", "", (400, "value", "invalid_value")),
    ],
)  # fmt: skip
async def test_an_invalid_request_is_refused(
    client: aiohttp.ClientSession, verb: str, target: str, body: str, failure: Failure
) -> None:
    """The error names the field at fault."""
    assert wrong(await ask(client, verb, target, body)) == failure


async def test_deep_and_broken_bodies_are_refused(client: aiohttp.ClientSession) -> None:
    """Every one of them is a 400."""
    nested = b'{"inner":' * 900 + b"{}" + b"}" * 900
    surrogates = nested[:-900].replace(b"{}", b'"\\ud83d\\ude00"') + b"}" * 900
    for body in (
        nested,
        surrogates,
        b'{"inner":' * 100_000,
        b"[" * 100_000,
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"\0",
    ):
        async with client.patch(
            "/v1/shelves/a", data=body, headers={"Content-Type": "application/json"}
        ) as response:
            assert response.status == 400


async def test_metadata_for_clients_becomes_headers(client: aiohttp.ClientSession) -> None:
    """Other metadata of the service is not sent."""
    async with client.get("/v1/things/a") as response:
        assert response.headers["x-pomogator-cost"] == "12"
        assert "x-secret" not in response.headers
        assert response.headers["x-request-id"]


async def test_a_key_is_required_by_default(sample: CompiledService) -> None:
    """The key is checked before the request."""
    async with (
        local_channel(sample.register) as channel,
        edge(sample, channel) as url,
        aiohttp.ClientSession(url) as client,
    ):
        answer = await ask(client, "GET", "/v1/things/a?stranger=1")

    assert wrong(answer) == (401, None, "invalid_api_key")


async def test_metadata_of_makes_the_metadata(sample: CompiledService) -> None:
    """The service gets the metadata that `metadata_of` returns."""
    told: list[Any] = []

    async def get(request: Any, context: Any) -> Any:
        told.extend(context.invocation_metadata())
        return request

    def register(server: Any) -> None:
        handlers: Any = {"GetThing": grpc.unary_unary_rpc_method_handler(get)}
        server.add_registered_method_handlers(SERVICE, handlers)

    def operator(request: web.Request) -> tuple[tuple[str, str], ...]:
        return (("x-operator", request.headers["X-Operator"]),)

    async with (
        local_channel(register) as channel,
        edge(sample, channel, metadata_of=operator) as url,
        aiohttp.ClientSession(url, headers={"X-Operator": "ann"}) as client,
    ):
        await ask(client, "GET", "/v1/things/a")

    assert [pair for pair in told if pair[0] != "user-agent"] == [("x-operator", "ann")]
