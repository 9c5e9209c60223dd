"""Bodies, keys, addresses and headers of requests that are hostile or wrong."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from gateway.http.auth_throttle import FAILURES
from services.common.key_format import new_secret
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    CHARGE,
    END,
    MESSAGES,
    MODEL,
    PATH,
    PROVIDER_KEY,
    TEXT,
    USAGE,
    FaultStand,
    fitting,
    piece,
)
from tests.gateway.http.raw import exchange
from tests.stand.upstream import SSE_HEAD, answer, chunk, event, json_answer

ASKED = {"model": MODEL, "messages": MESSAGES, "max_tokens": 50}


async def refuse(stand: FaultStand, body: bytes, code: str | None = None) -> None:
    """The body is refused with 400, and no provider is called."""
    reply = await stand.send(body)
    assert reply.status == 400
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert code in {None, reply.code}
    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("body", [b"", b"{", b"{} x", b"[]", b"null", b'"a"', b"{'a': 1}"])
async def test_a_body_that_is_no_json_object_is_refused_without_being_quoted(
    open_stand: OpenStand, body: bytes
) -> None:
    """A body that is not a JSON object is refused, and the error does not quote it. Row 14."""
    await refuse(await open_stand(), body, "invalid_json")


def nested(depth: int) -> Any:
    """A schema of this depth."""
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": schema}
    return schema


async def test_depth_of_a_body_is_bounded(open_stand: OpenStand) -> None:
    """A tool's schema of ordinary depth arrives as it was sent; one too deep is refused. Row 15."""
    stand = await open_stand()
    stand.play(fitting)
    schema = nested(45)
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert (await stand.ask(tools=[tool])).status == 200
    sent = stand.first.requests[0].json()["tools"][0]["function"]["parameters"]
    assert sent == schema

    for depth in (200, 1_000, 100_000):
        body = b'{"model": ' + b"[" * depth + b"]" * depth + b"}"
        reply = await stand.send(body)
        assert (reply.status, reply.code) == (400, "json_too_deep")


@pytest.mark.parametrize(
    "body",
    [b'{"model": "\xff"}', '{"model": "m"}'.encode("utf-16"), b'{"model": "\\ud800"}', b"\xc0\xaf"],
)
async def test_a_body_that_is_not_utf8_is_refused(open_stand: OpenStand, body: bytes) -> None:
    """Bytes that are not UTF-8 are refused. Row 16."""
    await refuse(await open_stand(), body)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000, "true", '"1"', "[1]"]
)
@pytest.mark.parametrize("field", ["temperature", "max_tokens"])
async def test_a_number_of_the_wrong_kind_is_refused(
    open_stand: OpenStand, field: str, value: str
) -> None:
    """A value that is not a number of the field's kind is refused. Row 17."""
    body = json.dumps(ASKED)[:-1] + f', "{field}": {value}}}'
    await refuse(await open_stand(), body.replace('"max_tokens": 50, ', "").encode())


async def test_a_key_that_stands_twice_is_refused(open_stand: OpenStand) -> None:
    """A JSON key that stands twice is refused, since two readers could disagree. Row 18."""
    await refuse(await open_stand(), b'{"model": "a", "model": "b"}', "duplicate_key")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 1.1),
        ("n", 0),
        ("n", 10**9),
        ("max_tokens", 0),
        ("max_tokens", 2**63),
        ("stop", ["a"] * 65),
        ("stream", "yes"),
        ("messages", []),
        ("messages", "hello"),
        ("model", ""),
        ("tool_choice", 7),
    ],
)
async def test_a_value_out_of_range_names_its_field(
    open_stand: OpenStand, field: str, value: Any
) -> None:
    """The error for a value out of range names the field. Row 19."""
    stand = await open_stand()
    stand.play(fitting)
    reply = await stand.send(json.dumps({**ASKED, field: value}).encode())

    assert reply.status == 400
    assert reply.error["param"].partition("[")[0] == field
    assert stand.first.requests == []


HOSTILE = {
    "api_base": "http://127.0.0.1:1",
    "base_url": "http://127.0.0.1:1",
    "api_key": "sk-mine",
    "user_config": {"model_list": []},
    "extra_headers": {"authorization": "x"},
    "__proto__": {"admin": True},
}


async def test_no_field_or_header_chooses_the_upstream_or_its_key(open_stand: OpenStand) -> None:
    """No field and no header of a request changes the upstream's address or key.

    Rows 20, 41, 51.
    """
    stand = await open_stand(first={"pass_through": False})
    stand.play(fitting)
    headers = {
        "X-Upstream": "http://127.0.0.1:1",
        "x-portkey-custom-host": "http://127.0.0.1:1",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "Keep-Alive": "timeout=5",
        "grpc-timeout": "1n",
        "x-internal-user": "root",
        "Cookie": "a=b",
    }

    assert (await stand.ask(headers=headers, **HOSTILE)).content == TEXT

    request = stand.first.requests[0]
    assert request.json().keys() == {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
    }
    assert request.headers.keys() == {
        "host",
        "authorization",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "user-agent",
    }
    assert request.headers["authorization"] == f"Bearer {PROVIDER_KEY}"


async def test_ten_thousand_messages_are_no_error_of_ours(open_stand: OpenStand) -> None:
    """Ten thousand messages are served or refused, and never an internal error. Row 21."""
    stand = await open_stand()
    stand.play(fitting)
    messages = [{"role": "user", "content": "x"}] * 10_000
    assert (await stand.ask(messages=messages)).status in {200, 400}

    strange: list[Any] = [
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": 7}],
        [{"role": "user"}],
        [{}],
        [None],
    ]
    for odd in strange:
        assert (await stand.ask(messages=odd)).status == 400


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,!!!!",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:,,,,,,,",
        "data:image/png;base64,aGVsbG8=",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_",
    ],
)
async def test_an_image_address_that_is_no_web_address_is_refused(
    open_stand: OpenStand, url: str
) -> None:
    """An image whose address is not http or https is refused. Rows 22, 40."""
    stand = await open_stand()
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]

    await refuse(stand, json.dumps({**ASKED, "messages": messages}).encode())


TEXTS = "🙂👨‍👩‍👧 שלום \u2028\u2029 \x00 e\u0301 {{7*7}} {0.__class__} %s ${jndi:x} <b>"


async def test_any_text_passes_unchanged(open_stand: OpenStand) -> None:
    """Any text passes both ways unchanged, however the provider cuts its bytes. Rows 23, 33."""
    stand = await open_stand()
    whole = event(json.dumps(piece(TEXTS), ensure_ascii=False))
    pieces = b"".join(chunk(whole[i : i + 1]) for i in range(len(whole)))
    stand.play([SSE_HEAD + pieces + END])

    reply = await stand.ask(messages=[{"role": "user", "content": TEXTS}])

    assert reply.content == f"{TEXTS}31d0"
    assert stand.first.requests[0].json()["messages"][0]["content"] == TEXTS
    assert all(line.startswith("data: ") for line in reply.text.split("\n\n") if line)


@pytest.mark.parametrize("model", ["a\r\nX: y", "m" * 10_000, "../../etc/passwd", "hоuse/model"])
async def test_an_unknown_model_is_not_quoted_at_length(open_stand: OpenStand, model: str) -> None:
    """An unknown model is refused by name, but a long name is not quoted in full. Row 24."""
    stand = await open_stand()
    reply = await stand.ask(model=model)

    assert (reply.status, reply.error["param"]) == (400, "model")
    assert reply.code in {"model_not_found", "invalid_value"}
    assert len(reply.text) < 300


MANY: dict[str, str] = {
    "objects": "[" + ",".join(["{}"] * 350_000) + "]",
    "long numbers": "{" + ",".join(f'"{n}":{n * (2**61 - 1)}' for n in range(30_000)) + "}",
    "keys": "{" + ",".join(f'"k{n}":0' for n in range(90_000)) + "}",
}


@pytest.mark.parametrize("what", MANY)
async def test_memory_for_a_body_is_a_bounded_multiple(open_stand: OpenStand, what: str) -> None:
    """A megabyte of small values takes a bounded multiple of memory, which is freed afterwards.

    Row 25.
    """
    stand = await open_stand()
    body = json.dumps({**ASKED, "metadata": "?"}).replace('"?"', MANY[what]).encode()
    await stand.send(body)
    tracemalloc.start()
    try:
        reply = await stand.send(body)
        # The thread that read it ends its work on it after the answer.
        await asyncio.sleep(0.05)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reply.status == 400
    assert stand.first.requests == []
    assert peak < 32 * len(body)
    assert kept < len(body)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic YTpi",
        "Bearer ",
        "Bearer ' OR 1=1--",
        "Bearer %",
        "Bearer _",
        "Bearer " + "k" * 7_000,
    ],
)
async def test_a_request_without_a_valid_key_is_401(open_stand: OpenStand, value: str) -> None:
    """Anything but a valid key is 401 with the scheme to use. Rows 26, 27."""
    stand = await open_stand()
    headers = {"Authorization": value}
    reply = await stand.ask(headers=headers)

    assert (reply.status, reply.code) == (401, "invalid_api_key")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_keys_with_a_common_prefix_are_distinct(open_stand: OpenStand) -> None:
    """A key with the prefix of a valid key is refused, also right after the valid one was used.

    Row 29.
    """
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.ask()).status == 200
    stranger = new_secret()
    alike = stand.key[:24] + stranger[24:]

    for key in (alike, stand.key[:-1], stranger):
        assert (await stand.ask(headers={"Authorization": f"Bearer {key}"})).status == 401


async def test_a_key_quoted_by_a_provider_is_not_passed_on(open_stand: OpenStand) -> None:
    """A provider's error that quotes our key or address reaches neither callers nor logs.

    Row 47.
    """
    stand = await open_stand()
    said = f"Incorrect API key {PROVIDER_KEY} at https://x/?key={PROVIDER_KEY}"
    refusal = json_answer({"error": {"message": said, "code": "bad"}}, 400)
    stand.play([refusal], second=[refusal])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (502, "upstream_auth_failed")
    assert PROVIDER_KEY not in reply.text


@pytest.mark.parametrize("asked", ["a b", "x" * 65, "a;level=ERROR", "\x1b[31m", "é"])
async def test_an_unsafe_request_id_is_replaced(open_stand: OpenStand, asked: str) -> None:
    """A request ID that does not fit a log line is replaced; each log entry stays one line.

    Row 50.
    """
    stand = await open_stand()
    stand.play(fitting)
    head = f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: {asked}\r\n\r\n"
    got = await exchange(*stand.address, head.encode())

    assert got is not None
    assert got.status in {200, 400}
    assert got.headers["x-request-id"].startswith("req-")
    assert all("\n" not in line for line in stand.log.text)


async def test_headers_of_a_provider_are_not_passed_on(open_stand: OpenStand) -> None:
    """None of a provider's response headers reaches the caller. Row 52."""
    stand = await open_stand()
    body = b"".join(
        event(each)
        for each in (piece(TEXT), piece("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]")
    )
    said: Any = {"set_cookie": "a=b", "server": "theirs", "x_request_id": "theirs", "x_their": "y"}
    stand.play([answer(body, 200, content_type="text/event-stream", **said)])

    reply = await stand.ask()

    assert reply.content == TEXT
    assert "theirs" not in str(reply.headers)
    assert not {"Set-Cookie", "X-Their"} & set(reply.headers)
    assert await stand.charged() == (1, CHARGE)


MIB = 1 << 20
FRAMINGS = {
    "declared": b"Content-Length: 20971520\r\n\r\n{",
    "expected": b"Content-Length: 20971520\r\nExpect: 100-continue\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
}


@pytest.mark.parametrize("wire", [False, True])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_large_body_needs_a_key_that_exists(
    open_stand: OpenStand, framing: str, wire: bool
) -> None:
    """A key that only has the form of one is refused before the body is read. Row 25."""
    stand = await open_stand(wire=wire)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {new_secret()}\r\n"

    got = await exchange(*stand.address, head.encode() + FRAMINGS[framing])

    assert got is not None
    assert got.status == 401


async def test_a_large_body_with_a_valid_key_is_read(open_stand: OpenStand) -> None:
    """The first request of a connection, and those after it. Row 25."""
    stand = await open_stand()
    stand.play(fitting)
    messages = [{"role": "user", "content": "x" * (MIB - 1000)}]

    for _ in range(3):
        assert (await stand.ask(messages=messages)).status == 200


@pytest.mark.parametrize("wire", [False, True])
async def test_a_wrong_body_with_an_unknown_key_is_a_guess(
    open_stand: OpenStand, wire: bool
) -> None:
    """Bodies that cannot be read do not hide guesses of keys from the throttle. Row 38."""
    stand = await open_stand(wire=wire)
    headers = {"Authorization": f"Bearer {new_secret()}"}

    replies = [await stand.send(b"{", headers) for _ in range(FAILURES + 1)]

    assert [reply.status for reply in replies] == [401] * FAILURES + [429]
    assert (await stand.send(b"{")).code == "invalid_json"
