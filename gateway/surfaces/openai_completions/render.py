"""Renderers of answers: `text_completion` objects, whole and as the events of a stream."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.errors import ApiError
from gateway.surfaces.openai_chat.common_members import FINISH_REASONS, STOP, render_usage
from gateway.surfaces.openai_completions.text_logprobs import to_lists
from gateway.surfaces.other_members import one_line, with_others
from services.domain.completion import Choice, Completion
from services.domain.conversation import TextPart
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    Finished,
    RefusalDelta,
    Started,
    TextDelta,
)
from services.domain.usage import Usage

_encode = msgspec.json.Encoder().encode
_ID_PREFIX = "chatcmpl-"
_NO_USAGE = Usage()


def render_text(completion: Completion, *, offset: int) -> bytes:
    """Return the body of a whole answer. `offset` is where the first token begins."""
    rendered: dict[str, object] = {
        **_identity(completion.completion_id, completion.create_time_s, completion.model),
        "choices": [_choice(choice, offset) for choice in completion.choices],
        "usage": render_usage(completion.usage, None),
    }
    if completion.system_fingerprint:
        rendered["system_fingerprint"] = completion.system_fingerprint
    return _encode(with_others(rendered, completion.extra_json))


def _choice(choice: Choice, offset: int) -> dict[str, object]:
    texts = [part.text for part in choice.message.content if isinstance(part, TextPart)]
    rendered: dict[str, object] = {
        "text": "".join(texts) or choice.message.refusal,
        "index": choice.index,
        "logprobs": to_lists(choice.logprobs_json, offset)[0],
        "finish_reason": FINISH_REASONS[False].get(choice.finish_reason, STOP),
    }
    return with_others(rendered, choice.extra_json)


def _identity(completion_id: str, created: int, model: str) -> dict[str, object]:
    return {
        "id": f"cmpl-{completion_id.removeprefix(_ID_PREFIX)}",
        "object": "text_completion",
        "created": created,
        "model": model,
    }


class TextRenderer:
    """Renderer of one stream, in order. Each result is whole server-sent events."""

    def __init__(self, *, include_usage: bool, offset: int) -> None:
        self._include_usage = include_usage
        self._offset = offset
        self._offsets: dict[int, int] = {}
        self._head: dict[str, object] = _identity("", 0, "")
        self.started = False
        """Whether the completion's ID is known, which all chunks carry."""
        self.finished = False

    def render(self, events: Sequence[Event]) -> bytes:
        """Render the events of one batch."""
        return b"".join(map(self._event, events))

    def error(self, error: ApiError) -> bytes:
        """Render the failure of a stream that has begun."""
        return b'data: {"error":%b}\n\n' % error.to_json()

    def _event(self, event: Event) -> bytes:
        match event:
            case Started():
                self.started = True
                self._head = _identity(event.completion_id, event.create_time_s, event.model)
            case AnswerMembers():
                if event.system_fingerprint:
                    self._head["system_fingerprint"] = event.system_fingerprint
                self._head = with_others(self._head, event.extra_json)
            case TextDelta() | RefusalDelta():
                return self._text(event)
            case ChoiceFinished():
                return self._end(event)
            case Finished():
                self.finished = True
                if self._include_usage:
                    return self._chunk([], render_usage(event.usage or _NO_USAGE, None))
            case _:
                pass  # Reasoning and tools, which no request of this API asks for.
        return b""

    def _text(self, delta: TextDelta | RefusalDelta) -> bytes:
        offset = self._offsets.get(delta.index, self._offset)
        logprobs, self._offsets[delta.index] = to_lists(delta.logprobs_json, offset)
        choice = {"text": delta.text, "index": delta.index, "logprobs": logprobs}
        return self._chunk([choice | {"finish_reason": None}])

    def _end(self, choice: ChoiceFinished) -> bytes:
        reason = FINISH_REASONS[False].get(choice.finish_reason, STOP)
        ended = {"text": "", "index": choice.index, "logprobs": None, "finish_reason": reason}
        return self._chunk([with_others(ended, choice.extra_json)])

    def _chunk(self, choices: Sequence[object], usage: object = None) -> bytes:
        chunk: dict[str, object] = {**self._head, "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: %b\n\n" % one_line(_encode(chunk))
