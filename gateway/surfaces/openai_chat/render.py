"""Chunk renderer: the chunks of a stream as OpenAI's `chat.completion.chunk` events.

The events of a stream differ in little: their common parts are encoded once, and each piece of text
is put between two constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1 import usage_pb2

from gateway.errors import ApiError
from services.common.money import exact_usd

FINISH_REASONS: Mapping[chat.FinishReason.ValueType, str] = {
    chat.FINISH_REASON_STOP: "stop",
    chat.FINISH_REASON_LENGTH: "length",
    chat.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat.FINISH_REASON_FUNCTION_CALL: "function_call",
}

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

    def render(self, chunks: Iterable[chat.ChatCompletionChunk]) -> bytes:
        """Render the chunks of one message of the service."""
        out: list[bytes] = []
        texts: list[tuple[str]] = []
        introduced = 0 in self._introduced
        for chunk in chunks:
            # Of a chunk with another event this is an empty delta, whose text is empty.
            delta = chunk.delta
            text = delta.text
            if text and introduced and not delta.index and not delta.logprobs_json:
                texts.append((text,))
                continue
            if texts:
                out.append(self._texts(texts))
                texts = []
            self._event(chunk, out)
            introduced = 0 in self._introduced
        if texts:
            out.append(self._texts(texts))
        return out[0] if len(out) == 1 else b"".join(out)

    def _event(self, chunk: chat.ChatCompletionChunk, out: list[bytes]) -> None:
        match chunk.WhichOneof("event"):
            case "delta":
                self._delta(chunk.delta, out)
            case "started":
                started = chunk.started
                self.started = True
                self._set_identity(
                    started.completion_id, started.create_time.seconds, started.model
                )
                self._introduce(0, out)
            case "choice_finished":
                self._choice_finished(chunk.choice_finished, out)
            case "finished":
                self._finished(chunk.finished, out)

    def _texts(self, texts: list[tuple[str]]) -> bytes:
        """Render one event for each piece of text of the first choice.

        All pieces are encoded at once, as `[["a"],["b"]]`. The sequence `"],["` is between two
        pieces and nowhere else, since a quote inside of a string has a backslash before it. The one
        exception is a piece that is `],[` itself.
        """
        if _BRACKETS in texts:
            return b"".join(
                [self._first_text + _encode(text) + self._delta_end for (text,) in texts]
            )
        encoded = _encode(texts)[2:-2]
        if len(texts) > 1:
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

    def _delta(self, delta: chat.CompletionDelta, out: list[bytes]) -> None:
        index = delta.index
        if index not in self._introduced:
            self._introduce(index, out)
        kind = delta.WhichOneof("content")
        logprobs = delta.logprobs_json
        members = b""
        if kind == "tool_call":
            if self._functions and delta.tool_call.index:
                return  # The old form has room for one call.
            members = self._tool_call(index, delta.tool_call)
        elif kind is not None:
            members = _MEMBERS[kind](delta)
        if not logprobs:
            out.append(b'%b%d,"delta":{%b%b' % (self._choice, index, members, self._delta_end))
            return
        out.append(
            b'%b%d,"delta":{%b},"logprobs":%b,"finish_reason":null}]%b'
            % (self._choice, index, members, one_line(logprobs), self._usage)
        )

    def _tool_call(self, index: int, call: chat.ToolCallDelta) -> bytes:
        if self._functions:
            piece = {"name": call.name} if call.name else {}
            return b'"function_call":' + _encode(piece | {"arguments": call.arguments})
        place = (index, call.index)
        if call.type == content.TOOL_TYPE_CUSTOM:
            self._custom_calls.add(place)
        kind, argument = _CUSTOM if place in self._custom_calls else _FUNCTION
        rendered: dict[str, object] = {"index": call.index}
        if call.id:
            rendered |= {"id": call.id, "type": kind}
        named = {"name": call.name} if call.name else {}
        rendered[kind] = named | {argument: call.arguments}
        return b'"tool_calls":[%b]' % _encode(rendered)

    def _choice_finished(self, choice: chat.ChoiceFinished, out: list[bytes]) -> None:
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

    def _finished(self, finished: chat.CompletionFinished, out: list[bytes]) -> None:
        self.finished = True
        if not self._include_usage:
            return
        cost = finished.cost_nano_usd if self._include_cost else None
        tier = finished.service_tier
        out.append(
            b'%b"choices":[],"usage":%b%b}\n\n'
            % (
                self._head,
                _encode(render_usage(finished.usage, cost)),
                b',"service_tier":' + _encode(tier) if tier else b"",
            )
        )


def _text(delta: chat.CompletionDelta) -> bytes:
    return b'"content":' + _encode(delta.text)


def _reasoning(delta: chat.CompletionDelta) -> bytes:
    return b'"reasoning_content":' + _encode(delta.reasoning)


def _reasoning_state(delta: chat.CompletionDelta) -> bytes:
    return b'"reasoning_state":' + _encode(delta.reasoning_state)


def _refusal(delta: chat.CompletionDelta) -> bytes:
    return b'"refusal":' + _encode(delta.refusal)


def _extra(delta: chat.CompletionDelta) -> bytes:
    return one_line(delta.extra_json)[1:-1]


_MEMBERS: Mapping[str, Callable[[chat.CompletionDelta], bytes]] = {
    "text": _text,
    "reasoning": _reasoning,
    "refusal": _refusal,
    "reasoning_state": _reasoning_state,
    "extra_json": _extra,
}


def one_line(text: bytes) -> bytes:
    """Return the same JSON without white space: a line break would end the event."""
    return msgspec.json.format(text, indent=-1)


def finish_reason(reason: chat.FinishReason.ValueType, *, functions: bool) -> str:
    """Return OpenAI's word; `stop` for reasons newer than this edge."""
    word = FINISH_REASONS.get(reason, "stop")
    return "function_call" if functions and word == "tool_calls" else word


def render_usage(usage: usage_pb2.Usage, cost_nano_usd: int | None) -> dict[str, object]:
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
