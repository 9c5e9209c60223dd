"""Chunk renderer: the events of a stream as OpenAI's `chat.completion.chunk` objects.

The objects of a stream differ in little: their common parts are encoded once, and each piece of
text is put between two constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import msgspec

from gateway.errors import ApiError
from services.common.money import exact_usd
from services.domain.events import (
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage

_FINISH_REASONS = frozenset(get_args(FinishReason)) - {""}

_encode = msgspec.json.Encoder().encode
_FUNCTION = ("function", "arguments")
_CUSTOM = ("custom", "input")
_BRACKETS = ("],[",)
_ROLE = b'"role":"assistant","content":"","refusal":null'


class ChunkRenderer:
    """Renderer of one stream, in order. Each result is whole server-sent events."""

    def __init__(
        self, *, include_usage: bool, include_cost: bool = False, functions: bool = False
    ) -> None:
        self._usage = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._include_usage = include_usage
        self._include_cost = include_cost
        self._functions = functions
        self._custom_calls: set[tuple[int, int]] = set()
        self._introduced: set[int] = set()
        self.started = False
        """Whether the completion's id is known, which all chunks carry."""
        self.finished = False
        self._set_identity("", 0, "")

    def render(self, events: Iterable[Event]) -> bytes:
        """Render the events of one batch."""
        out: list[bytes] = []
        texts: list[tuple[str]] = []
        introduced = 0 in self._introduced
        for event in events:
            if (
                type(event) is TextDelta
                and introduced
                and not event.index
                and not event.logprobs_json
            ):
                texts.append((event.text,))
                continue
            if texts:
                out.append(self._texts(texts))
                texts = []
            self._event(event, out)
            introduced = 0 in self._introduced
        if texts:
            out.append(self._texts(texts))
        return out[0] if len(out) == 1 else b"".join(out)

    def _event(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Started():
                self.started = True
                self._set_identity(event.completion_id, event.create_time_s, event.model)
                self._introduce(0, out)
            case ChoiceFinished():
                self._choice_finished(event, out)
            case Finished():
                self._finished(event, out)
            case _:
                self._delta(event, out)

    def _texts(self, texts: list[tuple[str]]) -> bytes:
        """Render one event for each piece of text of the first choice.

        All pieces are encoded at once, as `[["a"],["b"]]`. The sequence `"],["` is between two
        pieces and nowhere else, with two exceptions: a piece that is `],[` itself, and one that
        ends with `"],[`, whose quote has a backslash before it.
        """
        encoded = _encode(texts)[2:-2]
        if len(texts) > 1:
            if _BRACKETS in texts or b'\\"],["' in encoded:
                return b"".join(
                    [self._first_text + _encode(text) + self._delta_end for (text,) in texts]
                )
            encoded = encoded.replace(b'"],["', self._between_texts)
        return self._first_text + encoded + self._delta_end

    def error(self, error: ApiError) -> bytes:
        """Render the failure of a stream that has begun, as an event with nothing but the error.

        With `id` and `choices` beside it, Vercel's `ai` 5 and 6 and async-openai read the event as
        an empty chunk, and take the part of the answer that came before for a whole one.
        """
        return b'data: {"error":%b}\n\n' % error.to_json()

    def _set_identity(self, completion_id: str, created: int, model: str) -> None:
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _encode(completion_id),
            created,
            _encode(model),
        )
        self._choice = self._head + b'"choices":[{"index":'
        self._first_text = self._choice + b'0,"delta":{"content":'
        self._delta_end = b'},"finish_reason":null}]' + self._usage
        self._between_texts = b'"' + self._delta_end + self._first_text + b'"'

    def _introduce(self, index: int, out: list[bytes]) -> None:
        if index not in self._introduced:
            self._introduced.add(index)
            out.append(b'%b%d,"delta":{%b%b' % (self._choice, index, _ROLE, self._delta_end))

    def _delta(self, delta: Delta, out: list[bytes]) -> None:
        index = delta.index
        if index not in self._introduced:
            self._introduce(index, out)
        if type(delta) is ToolCallDelta:
            if self._functions and delta.call_index:
                return  # The old form has room for one call.
            members = self._tool_call(index, delta)
        else:
            members = _MEMBERS[type(delta)](delta)
        if not delta.logprobs_json:
            out.append(b'%b%d,"delta":{%b%b' % (self._choice, index, members, self._delta_end))
            return
        logprobs = one_line(delta.logprobs_json)
        out.append(
            b'%b%d,"delta":{%b},"logprobs":%b,"finish_reason":null}]%b'
            % (self._choice, index, members, logprobs, self._usage)
        )

    def _tool_call(self, index: int, call: ToolCallDelta) -> bytes:
        if self._functions:
            piece: dict[str, object] = {"name": call.name} if call.name else {}
            piece["arguments"] = call.arguments
            return b'"function_call":' + _encode(piece | _extra_content(call))
        place = (index, call.call_index)
        if call.type == "custom":
            self._custom_calls.add(place)
        kind, argument = _CUSTOM if place in self._custom_calls else _FUNCTION
        rendered: dict[str, object] = {"index": call.call_index}
        if call.id:
            rendered |= {"id": call.id, "type": kind}
        named = {"name": call.name} if call.name else {}
        rendered[kind] = named | {argument: call.arguments}
        rendered |= _extra_content(call)
        return b'"tool_calls":[%b]' % _encode(rendered)

    def _choice_finished(self, choice: ChoiceFinished, out: list[bytes]) -> None:
        self._introduce(choice.index, out)
        reason = finish_reason(choice.finish_reason, functions=self._functions)
        native = choice.native_finish_reason
        out.append(
            b'%b%d,"delta":{},"finish_reason":%b%b}]%b'
            % (
                self._choice,
                choice.index,
                _encode(reason),
                b',"native_finish_reason":' + _encode(native) if native else b"",
                self._usage,
            )
        )

    def _finished(self, finished: Finished, out: list[bytes]) -> None:
        self.finished = True
        if not self._include_usage:
            return
        cost = finished.cost_nano_usd or 0 if self._include_cost else None
        tier = finished.service_tier
        out.append(
            b'%b"choices":[],"usage":%b%b}\n\n'
            % (
                self._head,
                _encode(render_usage(finished.usage or _NO_USAGE, cost)),
                b',"service_tier":' + _encode(tier) if tier else b"",
            )
        )


_NO_USAGE = Usage()


def _reasoning(delta: ReasoningDelta) -> bytes:
    """Return the members of reasoning: with OpenRouter's names, too, where it has their form."""
    text = _encode(delta.text)
    if not delta.details_json:
        return b'"reasoning_content":' + text
    details = b'"reasoning_details":' + one_line(delta.details_json)
    if not delta.text:
        return details
    return b'"reasoning_content":%b,"reasoning":%b,%b' % (text, text, details)


_MEMBERS: Mapping[type[Delta], Callable[[Any], bytes]] = {
    TextDelta: lambda delta: b'"content":' + _encode(delta.text),
    ReasoningDelta: _reasoning,
    RefusalDelta: lambda delta: b'"refusal":' + _encode(delta.text),
    ReasoningStateDelta: lambda delta: b'"reasoning_state":' + _encode(delta.state),
    ExtraDelta: lambda delta: one_line(delta.extra_json)[1:-1],
}


def _extra_content(call: ToolCallDelta) -> dict[str, object]:
    if not call.extra_content_json:
        return {}
    return {"extra_content": msgspec.Raw(one_line(call.extra_content_json))}


def one_line(text: bytes) -> bytes:
    """Return the same JSON without white space: a line break would end the event."""
    return msgspec.json.format(text, indent=-1)


def finish_reason(reason: str, *, functions: bool) -> str:
    """Return OpenAI's word; `stop` for reasons newer than this edge."""
    word = reason if reason in _FINISH_REASONS else "stop"
    return "function_call" if functions and word == "tool_calls" else word


def render_usage(usage: Usage, cost_nano_usd: int | None) -> dict[str, object]:
    """Return OpenAI's `usage`, with this API's `thinking_tokens`, and `cost` in US dollars."""
    rendered: dict[str, object] = {
        "prompt_tokens": usage.prompt_token_count,
        "completion_tokens": usage.completion_token_count,
        "total_tokens": usage.total_token_count,
    }
    if usage.thinking_token_count:
        rendered["thinking_tokens"] = usage.thinking_token_count
    rendered["prompt_tokens_details"] = {
        "cached_tokens": usage.cache_read_token_count,
        "cache_write_tokens": usage.cache_write_token_count,
    }
    rendered["completion_tokens_details"] = {"reasoning_tokens": usage.thinking_token_count}
    if cost_nano_usd is not None:
        rendered["cost"] = msgspec.Raw(exact_usd(cost_nano_usd).encode())
    return rendered
