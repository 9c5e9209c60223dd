"""Message item: text and refusals of an answer, each as a content part."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.surfaces.openai_responses.output_item import Json, OutputItem, Status
from gateway.surfaces.openai_responses.response_events import ResponseEvents, delta_prefix

_NO_LOGPROBS = b',"logprobs":[]'
_TEXT = "output_text"
_REFUSAL = "refusal"


class _Token(Struct):
    token: str = ""
    bytes: list[int] | None = None
    logprob: float = 0.0


class _Position(_Token):
    top_logprobs: list[_Token] | None = None


class _Logprobs(Struct):
    content: list[_Position] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs)


def _text_logprobs(logprobs_json: bytes) -> list[dict[str, object]]:
    """Return the log probabilities of a text, with the bytes that the provider left out."""
    positions = _LOGPROBS.decode(logprobs_json).content or []
    return [
        {**_members(each), "top_logprobs": [_members(other) for other in each.top_logprobs or ()]}
        for each in positions
    ]


def _members(token: _Token) -> dict[str, object]:
    own = list(token.token.encode()) if token.bytes is None else token.bytes
    return {"token": token.token, "bytes": own, "logprob": token.logprob}


class MessageItem(OutputItem):
    """An open message, of whose content parts the last one is open."""

    prefix = "msg"

    def __init__(self, events: ResponseEvents, index: int, base: str, phase: str = "") -> None:
        super().__init__(events, index, f"{self.prefix}_{base}")
        self._parts: list[Json] = []
        self._kind = ""
        self._texts: list[str] = []
        self._logprobs: list[Json] = []
        self._delta = b""
        self.others: Json = {"phase": phase} if phase else {}
        """Members that the contract has no fields for."""
        self._added(self._item("in_progress"))

    def add_text(self, text: str, logprobs_json: bytes = b"") -> None:
        """Write a piece of text."""
        self._ensure(_TEXT)
        self._texts.append(text)
        suffix = _NO_LOGPROBS
        if logprobs_json:
            logprobs = _text_logprobs(logprobs_json)
            self._logprobs += logprobs
            suffix = b',"logprobs":%b' % msgspec.json.encode(logprobs)
        self.events.write_delta(self._delta, text, suffix)

    def add_refusal(self, text: str) -> None:
        """Write a piece of a refusal."""
        self._ensure(_REFUSAL)
        self._texts.append(text)
        self.events.write_delta(self._delta, text, b"")

    def annotate(self, annotations: Sequence[Json]) -> None:
        """Write what the text cites."""
        self._ensure(_TEXT)
        own = self._parts[-1]["annotations"]
        assert isinstance(own, list)  # noqa: S101 - for the type checker
        for annotation in annotations:
            place = {**self._place(), "annotation_index": len(own), "annotation": annotation}
            own.append(annotation)
            self.events.write("response.output_text.annotation.added", place)

    def close(self, status: Status) -> Json:
        """Write the end of the message."""
        self._close_part()
        return self._done(self._item(status))

    def _item(self, status: Status) -> Json:
        return {
            **self.others,
            "id": self.id,
            "type": "message",
            "status": status,
            "content": list(self._parts),
            "role": "assistant",
        }

    def _place(self) -> Json:
        return {**self.place, "content_index": len(self._parts) - 1}

    def _ensure(self, kind: str) -> None:
        if self._kind == kind:
            return
        self._close_part()
        self._kind = kind
        part: Json = {"type": _REFUSAL, "refusal": ""}
        if kind == _TEXT:
            part = {"type": _TEXT, "annotations": [], "logprobs": [], "text": ""}
        self._parts.append(part)
        place = self._place()
        self._delta = delta_prefix(f"response.{kind}.delta", place)
        self.events.write("response.content_part.added", {**place, "part": part})

    def _close_part(self) -> None:
        if not self._kind:
            return
        text, place, part = "".join(self._texts), self._place(), self._parts[-1]
        name = "text" if self._kind == _TEXT else _REFUSAL
        part[name] = text
        done = {**place, name: text}
        if self._kind == _TEXT:
            part["logprobs"] = done["logprobs"] = self._logprobs
        self.events.write(f"response.{self._kind}.done", done)
        self.events.write("response.content_part.done", {**place, "part": part})
        self._kind = ""
        self._texts, self._logprobs = [], []
