"""Calls to providers, over real sockets, with a dialect of a few words."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

import msgspec
import pytest

from services.capabilities import Capabilities
from services.clock import SystemClock
from services.config import ChannelConfig, Secret
from services.domain.completion import Choice, WholeAnswer
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, ChoiceFinished, Event, Finished, TextDelta
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import Notes, SseEvent, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.http import HttpClient
from services.providers.upstream import Upstream
from services.providers.upstream_answer import ERROR_BODY_MAX, UpstreamAnswer
from tests.stand.clock import FakeClock
from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    SSE_HEAD_UNTIL_CLOSE,
    STALL,
    FakeUpstream,
    Script,
    Step,
    UpstreamConnection,
    answer,
    chunk,
    event,
    head,
    json_answer,
    sse,
    stream,
)

FINISHED = Finished()
SECRET = "sk-canary"


class Words:
    """A decoder: data are words; `stop` is a finish reason, `[DONE]` the end, `ping` nothing."""

    def __init__(self) -> None:
        self.done = False
        self.usage: Usage | None = None
        self._stopped = False

    def feed(self, event: SseEvent) -> list[Event]:
        """One event for a word."""
        match event.data:
            case b"[DONE]":
                self.done = True
            case b"stop":
                self._stopped = True
            case b"error":
                raise UpstreamError(ErrorReason.UPSTREAM_ERROR, "It said so.")
            case b"ping":
                pass
            case _:
                return [TextDelta(event.data.decode())]
        return []

    def finish(self) -> list[Event]:
        """Complete only with a finish reason."""
        if not self._stopped:
            raise UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "Not complete.")
        return [FINISHED]

    def whole(self, body: bytes) -> WholeAnswer:
        """One text for the document."""
        message = Message(role="assistant", content=[TextPart(text=body.decode())])
        return WholeAnswer(choices=[Choice(message=message, finish_reason="stop")])


class Plain:
    """The dialect of `Words`."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Not used: the tests make their requests."""
        raise NotImplementedError

    def decoder(self, target: Target) -> Words:  # noqa: ARG002 - the protocol's
        """A new one."""
        return Words()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Tells what it was given."""
        message = f"{headers.get('x-why', '')} {len(body)} {body[:20].decode()}"
        return UpstreamError(ErrorReason.UPSTREAM_ERROR, message, status=status)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """As OpenAI has it."""
        return {"authorization": f"Bearer {key}"}


def _shown(event: Event) -> str:
    return "." if event == FINISHED else _text(event)


def _text(event: Event) -> str:
    return event.text if isinstance(event, TextDelta) else ""


class Caller:
    """Calls the fake through the code under test."""

    def __init__(self, upstream: FakeUpstream, http: HttpClient) -> None:
        self.upstream = upstream
        self.http = http
        self.clock: SystemClock | FakeClock = SystemClock()
        self.failures = ChannelFailures(SystemClock())
        self.channel: dict[str, object] = {}
        self.decoder = Words()
        self.request = UpstreamRequest(path="/chat", body=b'{"a":1}', streamed=True)

    @property
    def target(self) -> Target:
        """The channel, at the fake."""
        channel = ChannelConfig(name="a", dialect="plain", base_url=self.upstream.url)
        return Target(
            channel=msgspec.structs.replace(channel, **self.channel),
            model="m",
            public_model="m",
            capabilities=Capabilities(),
        )

    def answer(self) -> UpstreamAnswer:
        """A call."""
        self.decoder = Words()
        upstream = Upstream(self.http, self.clock, self.failures)
        return upstream.answer(self.request, self.target, Plain(), self.decoder)

    async def batches(self, *script: Step) -> list[list[str]]:
        """The batches of a call that is answered by `script`, `.` for the end."""
        if script:
            self.upstream.play(script)
        async with aclosing(self.answer()) as batches:
            return [
                [_shown(event) for event in batch if not isinstance(event, ChoiceFinished)]
                async for batch in batches
            ]

    async def failure(self, *script: Step) -> tuple[list[str], UpstreamError]:
        """What came before the failure of a call, answered by `script`, and how it failed."""
        if script:
            self.upstream.play(script)
        texts: list[str] = []

        async def listen() -> None:
            async with aclosing(self.answer()) as batches:
                async for batch in batches:
                    texts.extend(_text(event) for event in batch)

        with pytest.raises(UpstreamError) as failed:
            await listen()
        assert SECRET not in failed.value.message
        assert "127.0.0.1" not in failed.value.message
        return texts, failed.value


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """A caller, a provider and a client, of which nothing may be left."""
    async with FakeUpstream() as upstream:
        http = HttpClient()
        yield Caller(upstream, http)
        await http.close()


@pytest.mark.parametrize(
    ("script", "channel", "known"),
    [
        ([json_answer({}, 503)], {}, r"UPSTREAM_ERROR \(HTTP 503\)"),
        ([CUT], {}, r"UPSTREAM_DISCONNECTED \(disconnected: the connection was closed\)"),
        ([b"220 smtp\r\n\r\n"], {}, r"UPSTREAM_BAD_RESPONSE \(bad response: .*\)"),
        ([STALL], {"first_token_timeout_s": 0.1}, r"UPSTREAM_TIMEOUT"),
        ([SSE_HEAD + sse("a", "error")], {}, r"UPSTREAM_ERROR"),
        ([SSE_HEAD + sse("a") + LAST_CHUNK], {}, r"UPSTREAM_DISCONNECTED"),
        ([SSE_HEAD + sse("a"), CUT], {}, r"UPSTREAM_DISCONNECTED.*"),
        ([], {"base_url": "http://127.0.0.1:1"}, r"UPSTREAM_UNREACHABLE \(unreachable: .*111.*\)"),
        ([], {"base_url": "http://a.invalid"}, r"UPSTREAM_UNREACHABLE \(dns: .*\)"),
    ],
)
async def test_operators_learn_the_cause(
    caller: Caller,
    caplog: pytest.LogCaptureFixture,
    script: list[Step],
    channel: dict[str, object],
    known: str,
) -> None:
    """In the log once, with host and status, and as the last failure of the target."""
    caller.channel = channel
    for _ in range(2):
        _, error = await caller.failure(*script)

    last = caller.failures.last(caller.target)
    assert last is not None
    assert re.fullmatch(known, last.text)
    (line,) = [vars(each) for each in caplog.records if each.message == "channel.failed"]
    assert (line["channel"], line["status"], line["reason"]) == ("a", error.status, error.reason)
    assert line["host"] in caller.target.channel.base_url
    assert line["levelname"] == "WARNING"
    assert line["cause"] in last.text


async def test_sends_what_it_should(caller: Caller) -> None:
    """The request has the channel's key and headers, and nothing else of ours."""
    caller.channel = {
        "key": Secret("sk-upstream"),
        "headers": {"HTTP-Referer": "https://a.test", "User-Agent": "mine"},
    }
    caller.request = UpstreamRequest(
        path="/chat", body=b'{"a":1}', streamed=True, headers={"x-version": "1"}
    )

    await caller.batches(stream(["a", "stop"]))

    request = caller.upstream.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat", b'{"a":1}')
    assert request.headers == {
        "host": f"127.0.0.1:{caller.upstream.port}",
        "content-type": "application/json",
        "content-length": "7",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "mine",
        "authorization": "Bearer sk-upstream",
        "http-referer": "https://a.test",
        "x-version": "1",
    }


async def test_sends_a_query_and_secret_headers(caller: Caller) -> None:
    """As Azure wants them: the key in a header of its own, and a version in the URL."""
    caller.channel = {
        "secret_headers": (("api-key", Secret("sk-azure")),),
        "query": {"api-version": "2024-10-21", "a b": "c&d"},
    }

    await caller.batches(stream(["a", "stop"]))

    request = caller.upstream.requests[0]
    assert request.path.partition("?")[2] == "api-version=2024-10-21&a%20b=c%26d"
    assert request.headers["api-key"] == "sk-azure"
    assert "authorization" not in request.headers


async def test_sends_no_key_where_there_is_none(caller: Caller) -> None:
    """A channel without a key presents none."""
    await caller.batches(stream(["a", "stop"]))

    assert "authorization" not in caller.upstream.requests[0].headers


async def test_what_arrives_together_is_one_batch(caller: Caller) -> None:
    """Nothing waits to fill a batch, and nothing that is there is left for the next."""
    seen = asyncio.Event()
    caller.upstream.play([SSE_HEAD + sse("a", "b"), seen, sse("c", "stop", "[DONE]") + LAST_CHUNK])
    batches: list[Batch] = []

    async with aclosing(caller.answer()) as answer:
        async for batch in answer:
            batches.append(batch)
            seen.set()

    assert batches == [[TextDelta("a"), TextDelta("b")], [TextDelta("c"), FINISHED]]


COMPLETE: Mapping[str, Script] = {
    "events": [stream(["a", "stop"])],
    "no [DONE]": [stream(["a", "stop"], done=False)],
    "no [DONE], until close": [SSE_HEAD_UNTIL_CLOSE, event("a"), event("stop"), CUT],
    "the last blank line missing": [
        SSE_HEAD_UNTIL_CLOSE + event("a") + event("stop") + event("[DONE]")[:-1],
        CUT,
    ],
    "blank lines and a mark first": [
        SSE_HEAD + chunk(b"\xef\xbb\xbf\n\n"),
        chunk(b": hello\n\n") + sse("a", "stop", "[DONE]") + LAST_CHUNK,
    ],
    "another content type": [answer(event("a") + event("stop"), content_type="application/json")],
    "compressed": [answer(gzip.compress(event("a") + event("stop")), content_encoding="gzip")],
}


@pytest.mark.parametrize("name", COMPLETE)
async def test_reads_streams(name: str, caller: Caller) -> None:
    """A stream is read however it is dressed."""
    batches = await caller.batches(*COMPLETE[name])

    assert [text for batch in batches for text in batch] == ["a", "."]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param([json_answer({"x": 1})], id="length"),
        pytest.param([SSE_HEAD + chunk(b'\n\n  {"x"'), chunk(b": 1}") + LAST_CHUNK], id="chunks"),
        pytest.param([SSE_HEAD_UNTIL_CLOSE + b'{"x": 1}', CUT], id="until close"),
    ],
)
async def test_reads_documents(streamed: bool, script: Script, caller: Caller) -> None:
    """A JSON document is one, whatever was asked for and whatever it is called."""
    caller.request = UpstreamRequest(path="/chat", body=b"{}", streamed=streamed)

    assert await caller.batches(*script) == [['{"x": 1}', "."]]


@pytest.mark.parametrize(
    ("script", "before"),
    [
        pytest.param([SSE_HEAD, CUT], [], id="before anything"),
        pytest.param([SSE_HEAD + sse("a"), CUT], ["a"], id="between events"),
        pytest.param([SSE_HEAD + sse("a", "stop"), CUT], ["a"], id="after the finish reason"),
        pytest.param([stream(["a"], done=False)], ["a"], id="a clean end without finish reason"),
        pytest.param([SSE_HEAD_UNTIL_CLOSE + event("a"), CUT], ["a"], id="until close"),
        pytest.param([answer(event("a") + event("stop"))[:-9], CUT], ["a"], id="length short"),
        pytest.param([answer(b'{"a":1}')[:-1], CUT], [], id="half a document"),
        pytest.param([SSE_HEAD + chunk(b'{"a"'), HALF_CLOSE], [], id="half a chunked document"),
        pytest.param([CUT], [], id="no answer"),
    ],
)
async def test_a_cut_is_never_an_end(script: Script, before: list[str], caller: Caller) -> None:
    """An answer that breaks off is an error, after what there was of it."""
    texts, error = await caller.failure(*script)

    assert texts == before
    assert error.reason == ErrorReason.UPSTREAM_DISCONNECTED
    assert error.row.retryable


async def test_a_reset_is_a_cut(caller: Caller) -> None:
    """A reset connection is no different."""
    seen = asyncio.Event()
    caller.upstream.play([SSE_HEAD + sse("a"), seen, RESET])
    batches = caller.answer()
    assert await anext(batches) == [TextDelta("a")]
    seen.set()

    with pytest.raises(UpstreamError) as failed:
        await anext(batches)

    assert failed.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([answer(b"")], id="nothing"),
        pytest.param([answer(b" \r\n\r\n")], id="blank lines"),
        pytest.param([answer(b"\n<html>")], id="a page"),
        pytest.param([answer(b"upstream connect error", content_type="text/plain")], id="text"),
        pytest.param([answer(b": keep-alive\n\n")], id="only comments"),
        pytest.param([b"220 mail.test ESMTP\r\n", CUT], id="not HTTP"),
        pytest.param([answer(b"?", content_encoding="br")], id="an unknown compression"),
        pytest.param([answer(b"?", content_encoding="gzip")], id="a broken compression"),
        pytest.param(
            [answer(gzip.compress(b"\n" * 50_000_000), content_encoding="gzip")], id="a bomb"
        ),
        pytest.param([SSE_HEAD + chunk(b"x") + b"zz\r\n", STALL], id="bad chunks"),
    ],
)
async def test_what_cannot_be_read(script: Script, caller: Caller) -> None:
    """What is neither a stream nor a document is a bad response, with a status of 200 too."""
    texts, error = await caller.failure(*script)

    assert texts == []
    assert error.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


async def test_events_of_a_megabyte_pass(caller: Caller) -> None:
    """A picture in one event is no trouble."""
    word = "x" * 1_900_000

    batches = await caller.batches(stream([word, "stop"]))

    assert [text for batch in batches for text in batch] == [word, "."]


async def test_an_error_in_the_stream(caller: Caller) -> None:
    """What came before an error event, in the same read, is given before the error."""
    texts, error = await caller.failure(SSE_HEAD + sse("a", "b", "error", "c"), STALL)

    assert texts == ["a", "b"]
    assert error.message == "It said so."
    await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize("rest", [[STALL], [chunk(b"more") + LAST_CHUNK], [RESET]])
async def test_nothing_matters_after_the_end(rest: Script, caller: Caller) -> None:
    """When the provider has said that it is done, the connection's fate is its own affair."""
    script = [SSE_HEAD + sse("a", "stop", "[DONE]", "b"), *rest]

    assert await caller.batches(*script) == [["a", "."]]
    if rest == [STALL]:
        await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 429, 500, 529])
async def test_the_dialect_explains_other_statuses(status: int, caller: Caller) -> None:
    """Status, headers and body reach the dialect; a redirect is not followed."""
    body = b"" if status == 204 else b"because"
    wire = head(204, x_why="y") if status == 204 else answer(body, status, x_why="y")

    _, error = await caller.failure(wire)

    assert error.status == status
    assert error.message == f"y {len(body)} {body.decode()}"
    assert len(caller.upstream.requests) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([answer(b"x" * 1_000_000, 500)], f" {ERROR_BODY_MAX} {'x' * 20}"),
        ([answer(b"because", 500)[:-3], CUT], " 4 beca"),
        ([answer(b"?", 500, content_encoding="br")], " 0 "),
    ],
)
async def test_the_status_matters_most(script: Script, message: str, caller: Caller) -> None:
    """A refusal's body may be large, cut or unreadable: its status stands."""
    _, error = await caller.failure(*script)

    assert error.status == 500
    assert error.message == message


async def test_nobody_is_there(caller: Caller) -> None:
    """A provider that takes no connection, or has no address, is unreachable."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        caller.channel = {"base_url": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        _, refused = await caller.failure()
    caller.channel = {"base_url": "http://nowhere.invalid"}
    _, nameless = await caller.failure()
    caller.channel = {"base_url": caller.upstream.url.replace("http:", "https:")}
    caller.upstream.play([STALL])
    caller.channel |= {"connect_timeout_s": 0.1}
    _, insecure = await caller.failure()

    assert refused.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert nameless.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert insecure.reason == ErrorReason.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize(
    "channel",
    [
        {"key": Secret(f"{SECRET}\r\nx: y")},
        {"headers": {"x": f"{SECRET}\n"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"base_url": "not a URL"},
        {"base_url": "http://user:password@127.0.0.1"},
    ],
)
async def test_a_misconfigured_channel(channel: dict[str, object], caller: Caller) -> None:
    """What cannot be sent is this channel's fault alone, and shows no secret."""
    caller.channel = channel

    _, error = await caller.failure()

    assert error.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert caller.upstream.requests == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([STALL], id="no head"),
        pytest.param([SSE_HEAD, STALL], id="no body"),
        pytest.param([SSE_HEAD + chunk(b": hi\n\n"), STALL], id="a comment"),
        pytest.param([SSE_HEAD + sse("ping", "ping"), STALL], id="pings"),
        pytest.param([SSE_HEAD + chunk(b'{"a"'), STALL], id="half a document"),
    ],
)
async def test_a_provider_that_does_not_begin(script: Script, caller: Caller) -> None:
    """Without a first token in time the call fails, and the connection is closed."""
    clock = caller.clock = FakeClock()
    caller.channel = {"first_token_timeout_s": 0.05, "progress_timeout_s": 0.05}

    async def dawdle(_: object) -> None:
        clock.advance(0.06)
        await asyncio.sleep(0.05)  # Half a document is progress: it has some time more.
        clock.advance(0.06)

    texts, error = await caller.failure(*script[:-1], dawdle, script[-1])

    assert texts == []
    assert error.reason == ErrorReason.UPSTREAM_TIMEOUT
    await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize(
    "channel",
    [
        pytest.param({"progress_timeout_s": 0.05}, id="progress"),
        pytest.param({"total_timeout_s": 1.0}, id="total"),
    ],
)
async def test_a_provider_that_falls_silent(channel: dict[str, object], caller: Caller) -> None:
    """A stream without progress is given up, after what there was of it."""
    caller.channel = channel

    texts, error = await caller.failure(SSE_HEAD + sse("a"), STALL)

    assert texts == ["a"]
    assert error.reason == ErrorReason.UPSTREAM_STALLED
    await caller.upstream.requests[0].left.wait()


async def test_pings_are_no_progress(caller: Caller) -> None:
    """A provider that only keeps the connection alive has fallen silent."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.02}

    async def ping_for_ever(line: UpstreamConnection) -> None:
        while True:
            clock.advance(0.005)
            line.writer.write(sse("ping"))
            await line.writer.drain()
            await asyncio.sleep(0.001)

    texts, error = await caller.failure(SSE_HEAD + sse("a"), ping_for_ever)

    assert texts == ["a"]
    assert error.reason == ErrorReason.UPSTREAM_STALLED


async def test_the_moment_moves_with_every_token(caller: Caller) -> None:
    """The timer rings often, but a provider that goes on is never late."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.01}
    go = [asyncio.Event() for _ in range(5)]
    steps = [step for event in go for step in (event, sse("a"))]
    caller.upstream.play([SSE_HEAD + sse("a"), *steps, sse("stop", "[DONE]") + LAST_CHUNK])
    count = 0

    async with aclosing(caller.answer()) as batches:
        async for _ in batches:
            clock.advance(0.009)
            await asyncio.sleep(0.02)  # The timer rings meanwhile.
            if count < len(go):
                go[count].set()
            count += 1

    assert count >= len(go)


async def test_a_slow_caller_is_not_the_providers_fault(caller: Caller) -> None:
    """While the caller is busy with a batch, the provider cannot be late."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.01}
    caller.upstream.play([SSE_HEAD + sse("a"), sse("b", "stop", "[DONE]") + LAST_CHUNK])
    texts: list[str] = []

    async with aclosing(caller.answer()) as batches:
        async for batch in batches:
            texts += [_text(event) for event in batch]
            clock.advance(10)
            await asyncio.sleep(0.03)  # The timer rings meanwhile.

    assert texts[:2] == ["a", "b"]


@pytest.mark.parametrize(
    "channel", [{"first_token_timeout_s": 0.05}, {"total_timeout_s": 0.05}], ids=["first", "total"]
)
async def test_a_document_has_to_begin_in_time(channel: dict[str, object], caller: Caller) -> None:
    """A document has the time of a first event; one that cannot be a stream, the total time."""
    clock = caller.clock = FakeClock()
    caller.channel = channel
    may_stream = "first_token_timeout_s" in channel
    caller.request = UpstreamRequest(
        path="/chat", body=b"{}", streamed=False, may_stream=may_stream
    )

    async def dawdle(_: object) -> None:
        clock.advance(0.06)

    _, error = await caller.failure(head(content_length="7"), dawdle, STALL)

    assert error.reason == ErrorReason.UPSTREAM_TIMEOUT


async def test_a_document_that_cannot_be_a_stream_may_take_its_time(caller: Caller) -> None:
    """It has no first event, so that only its total time is limited."""
    clock = caller.clock = FakeClock()
    caller.channel = {"first_token_timeout_s": 0.01}
    caller.request = UpstreamRequest(path="/chat", body=b"{}", streamed=False, may_stream=False)

    async def ponder(_: object) -> None:
        clock.advance(100)

    assert await caller.batches(head(content_length="7"), ponder, b'{"a":1}') == [['{"a":1}', "."]]


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_leaving_closes_the_connection(how: str, caller: Caller) -> None:
    """A caller that leaves is felt by the provider at once."""
    caller.upstream.play([SSE_HEAD + sse("a"), STALL])
    begun = asyncio.Event()

    async def listen() -> None:
        async with aclosing(caller.answer()) as batches:
            async for _ in batches:
                begun.set()
                if how == "close":
                    return

    listening = asyncio.create_task(listen())
    await begun.wait()
    if how == "cancel":
        listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    await caller.upstream.requests[0].left.wait()


async def test_connections_are_kept(caller: Caller) -> None:
    """Streams, documents and refusals that ended cleanly share one connection."""
    caller.upstream.play([stream(["a", "stop"])], [json_answer({})], [answer(b"no", 400)])

    await caller.batches()
    await caller.batches()
    await caller.failure()
    await caller.failure()

    assert caller.upstream.connections == 1
