"""A fake provider of one dialect, which checks requests and gives prepared answers.

    async with FakeProvider("anthropic") as provider:
        provider.say(Answer(parts=[text("Hello")]))
        ...  # call provider.url
        assert provider.bodies[0]["model"] == "claude-sonnet-4-5"

A request that the real API would refuse is refused with 400, for the same reasons: unknown
keys, calls without results, and earlier reasoning that does not come back as it was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from tests.stand.providers.answers import Answer, Break, Refused
from tests.stand.providers.anthropic import Anthropic
from tests.stand.providers.openai import OpenAi
from tests.stand.providers.openai_responses import OpenAiResponses
from tests.stand.providers.openrouter import OpenRouter
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    STALL,
    End,
    FakeUpstream,
    Request,
    Script,
    chunk,
    json_answer,
)

Json = dict[str, Any]
Slicing = Callable[[bytes], Iterable[bytes]]
"""How a stream's bytes are cut into chunks."""


COUNTED: Mapping[str, frozenset[str]] = {
    "/messages/count_tokens": frozenset(
        {*("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")}
    ),
    "/responses/input_tokens": frozenset(
        {*("model", "input", "instructions", "tools", "tool_choice", "text", "reasoning")}
        | {"parallel_tool_calls", "truncation"}
    ),
}
"""Members of requests for the tokens of a prompt, of which each byte is one, by path."""

ENDS: Mapping[Break | None, End] = {"cut": CUT, "stall": STALL}
"""The end of the connection where an answer is truncated without an error."""


class DialectForm(Protocol):
    """The wire form of a dialect, on the provider's side."""

    def complaint(self, body: Json, given: Sequence[Answer]) -> str:
        """The error of a request that follows these answers; empty where it is valid."""
        ...

    def document(self, answer: Answer, body: Json) -> Json:
        """The answer, whole."""
        ...

    def events(self, answer: Answer, body: Json) -> Iterator[bytes]:
        """The answer's events, each whole."""
        ...

    def refusal(self, refused: Refused) -> Json:
        """The body of an answer with another status."""
        ...


SPEECHES: Mapping[str, DialectForm] = {
    "anthropic": Anthropic(),
    "openai": OpenAi(),
    "openai-responses": OpenAiResponses(),
    "openrouter": OpenRouter(),
}


class FakeProvider:
    """A provider of one dialect on a port of its own."""

    def __init__(self, dialect: str) -> None:
        self._speech = SPEECHES[dialect]
        self._upstream = FakeUpstream()
        self._upstream.play(self._answer)
        self._next: deque[Answer | Refused] = deque()
        self._given: list[Answer] = []
        self.slicing: Slicing | None = None
        """Without one, every event is sent by itself."""

    def say(self, *answers: Answer | Refused) -> None:
        """Sets the next answers, the last of which repeats, and forgets earlier requests."""
        self._next = deque(answers)
        self._given.clear()
        self._upstream.requests.clear()
        self.slicing = None

    @property
    def url(self) -> str:
        """The base URL, to be used as a channel's."""
        return self._upstream.url

    @property
    def requests(self) -> Sequence[Request]:
        """The requests since the latest `say`."""
        return self._upstream.requests

    @property
    def bodies(self) -> Sequence[Json]:
        """The bodies of these requests."""
        return [request.json() for request in self.requests]

    async def request(self) -> Request:
        """The first of these requests. Waits for it."""
        return await self._upstream.request()

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._upstream.__aexit__(kind, error, trace)

    def _answer(self, request: Request) -> Script:
        body = request.json()
        if (members := COUNTED.get(request.path.removeprefix("/v1"))) is not None:
            assert body.keys() <= members
            return [json_answer({"input_tokens": len(request.body)})]
        if complaint := self._speech.complaint(body, self._given):
            return self._refusal(
                Refused(status=400, kind="invalid_request_error", message=complaint)
            )
        answer = self._next.popleft() if len(self._next) > 1 else self._next[0]
        if isinstance(answer, Refused):
            return self._refusal(answer)
        self._given.append(answer)
        if not body.get("stream"):
            return self._document(answer, body)
        events = list(self._speech.events(answer, body))
        pieces = events if self.slicing is None else self.slicing(b"".join(events))
        end = ENDS.get(answer.breaks_off, LAST_CHUNK)
        return [SSE_HEAD, *(chunk(piece) for piece in pieces), end]

    def _document(self, answer: Answer, body: Json) -> Script:
        if answer.breaks_off == "error":
            return self._refusal(Refused(status=500, kind="api_error", message="It failed."))
        whole = json_answer(self._speech.document(answer, body))
        end = ENDS.get(answer.breaks_off)
        return [whole] if end is None else [whole[:-9], end]

    def _refusal(self, refused: Refused) -> Script:
        headers = {}
        if refused.retry_after_s is not None:
            headers["retry_after"] = str(refused.retry_after_s)
        return [json_answer(self._speech.refusal(refused), refused.status, **headers)]
