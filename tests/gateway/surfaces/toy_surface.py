"""Toy surface: an API that shares nothing with OpenAI's, to test the seam for new ones.

`POST /toy/say` with `x-toy-key` takes `{"to": MODEL, "say": TEXT, "live": BOOL}`, and answers with
`{"said": TEXT}`, or with named events and no end marker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec
from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError, invalid
from gateway.http.error_answer import ErrorAnswer
from gateway.surfaces.base import Framing, Route, Surface
from services.common.json_errors import NOT_JSON
from services.domain.completion import Completion
from services.domain.conversation import Message, TextPart
from services.domain.events import Event, Finished, Started, TextDelta
from services.domain.spec import ChatCompletionSpec

URL = "/toy/say"
OVERLOADED = 529


class _Body(msgspec.Struct):
    to: str
    say: str
    live: bool = False


class ToyRenderer:
    """Renders named events."""

    def __init__(self) -> None:
        self.started = False
        self.finished = False

    def render(self, events: Iterable[Event]) -> bytes:
        """Render one named event for each."""
        return b"".join(map(self._event, events))

    def error(self, error: ApiError) -> bytes:
        """Render the event `failed`."""
        return _event("failed", {"why": error.message})

    def _event(self, event: Event) -> bytes:
        match event:
            case Started():
                self.started = True
                return _event("hello", {"from": event.model})
            case TextDelta():
                return _event("word", {"text": event.text})
            case Finished():
                self.finished = True
        return b""


class ToyRequest:
    """A decoded request."""

    def __init__(self, body: _Body) -> None:
        message = Message(role="user", content=[TextPart(text=body.say)])
        self.spec = ChatCompletionSpec(model=body.to, messages=[message])
        self.stream = body.live
        self.raw = self.texts = None

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render the text alone."""
        parts = completion.choices[0].message.content
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        return json.dumps({"said": "".join(texts)}).encode()

    def stream_renderer(self) -> ToyRenderer:
        """Return a renderer of named events."""
        return ToyRenderer()


class ToySurface(Surface):
    """The toy API."""

    name = "toy"
    routes = (Route("POST", URL),)
    credential_headers = ("x-toy-key", "Authorization")
    framing = Framing(keep_alive=b"event: ping\ndata: {}\n\n")

    def check_headers(self, headers: MultiMapping[str]) -> None:
        """Refuse another version than 1."""
        if headers.get("x-toy-version", "1") != "1":
            raise invalid("x-toy-version", "Only version 1 is spoken.")

    def decode(self, body: bytes, headers: MultiMapping[str], config: EdgeConfig) -> ToyRequest:
        """Decode a request."""
        del headers, config
        try:
            return ToyRequest(msgspec.json.decode(body, type=_Body))
        except NOT_JSON:
            raise invalid("say", "Say something.") from None

    def render_error(self, error: ApiError, request_id: str) -> ErrorAnswer:
        """Render a failure in the toy's form, with a status of its own for overload."""
        body = {"type": "error", "why": error.message, "request": request_id}
        status = OVERLOADED if error.code == "overloaded" else error.status
        return ErrorAnswer(status, json.dumps(body).encode(), {"x-toy-error": error.code})


def _event(name: str, data: Mapping[str, str]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
