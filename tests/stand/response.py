"""Responses of the gateway as a client reads them: whole, streamed or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import aiohttp

DONE = "[DONE]"
REPLAYED = ("Idempotency-Replayed", "x-pomogator-idempotent-replayed")


@dataclass(frozen=True)
class ReadResponse:
    """A response that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    """By name in any case."""
    body: bytes
    streamed: bool
    """Whether it is a stream of events."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @cached_property
    def json(self) -> Any:
        """The body where it is a document; None where it is a stream."""
        return None if self.streamed else json.loads(self.body)

    @cached_property
    def events(self) -> Sequence[Any]:
        """The data of the events of a stream. `[DONE]` stands as a string."""
        if not self.streamed:
            return []
        lines = self.text.split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [each if each == DONE else json.loads(each) for each in data]

    @property
    def error(self) -> Any:
        """The error of the document or of the stream; None where there is none."""
        if not self.streamed:
            return self.json.get("error")
        errors = [event["error"] for event in self.events if "error" in event]
        assert len(errors) < 2
        return errors[0] if errors else None

    @property
    def code(self) -> str | None:
        """The code of the error."""
        return self.error and str(self.error["code"])

    @property
    def content(self) -> str:
        """The text of the answer."""
        if not self.streamed:
            return str(self.json["choices"][0]["message"]["content"])
        deltas = (choice["delta"] for choice in self._choices if "delta" in choice)
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def finishes(self) -> Sequence[str]:
        """The finish reasons of all events."""
        return [c["finish_reason"] for c in self._choices if c.get("finish_reason")]

    @property
    def _choices(self) -> Sequence[Any]:
        """The choices of all events. An error event contains only the error."""
        return [choice for event in self.events[:-1] for choice in event.get("choices", ())]

    @property
    def usage(self) -> Any:
        """The usage, which a stream has in its last event before `[DONE]`."""
        if not self.streamed:
            return self.json["usage"]
        *_, last, done = self.events
        assert done == DONE
        return last["usage"]

    @property
    def replayed(self) -> bool:
        """Whether the headers say that it is a replay for an idempotency key."""
        said = [self.headers.get(name) for name in REPLAYED]
        assert said in (["true", "true"], [None, None])
        return said[0] is not None


async def read(response: aiohttp.ClientResponse) -> ReadResponse:
    """Reads a response to its end."""
    streamed = response.content_type == "text/event-stream"
    return ReadResponse(response.status, response.headers, await response.read(), streamed)
