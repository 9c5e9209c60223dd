"""OpenAI's chat API: strict about requests, terse about answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.stand.providers.answers import Answer, Call, Part, Refused, Text, Thought
from tests.stand.upstream import event

Json = dict[str, Any]

KEYS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "n"),
        *("logprobs", "top_logprobs", "logit_bias", "tools", "tool_choice", "user", "verbosity"),
        "prompt_cache_key",
        *("parallel_tool_calls", "response_format", "reasoning_effort", "thinking", "metadata"),
        # Servers of open weights.
        *("top_k", "min_p", "repetition_penalty"),
    }
)
"""The keys of a request. Any other is refused."""

MESSAGE_KEYS = frozenset(
    {"role", "content", "name", "refusal", "tool_calls", "tool_call_id", "reasoning_content"}
)


class OpenAi:
    """Speaks OpenAI's dialect."""

    keys: frozenset[str] = KEYS
    message_keys: frozenset[str] = MESSAGE_KEYS

    def complaint(self, body: Json, given: Sequence[Answer]) -> str:
        """Return the fault of a request that follows these answers. Empty: it has no fault."""
        if unknown := body.keys() - self.keys:
            return f"Unrecognized request argument supplied: {sorted(unknown)}"
        if "stream_options" in body and not body.get("stream"):
            return "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        for sent in body["messages"]:
            if unknown := sent.keys() - self.message_keys:
                return f"Additional properties are not allowed: {sorted(unknown)}"
        return _unanswered(body["messages"]) or self._changed(body, given)

    def document(self, answer: Answer, body: Json) -> Json:
        """The answer, whole."""
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "message": self.message(answer),
                    "logprobs": _logprobs([answer.text]) if body.get("logprobs") else None,
                    "finish_reason": answer.stop,
                }
                for index in range(body.get("n", 1))
            ],
            "usage": self.usage(answer),
        }

    def events(self, answer: Answer, body: Json) -> Iterator[bytes]:
        """The encoded events of the answer."""
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": body["model"],
        }
        for index in range(body.get("n", 1)):
            for delta in ({"role": "assistant", "content": ""}, *self.deltas(answer)):
                choice: Json = {"index": index, "delta": delta, "finish_reason": None}
                if body.get("logprobs") and delta.get("content"):
                    choice["logprobs"] = _logprobs([delta["content"]])
                yield event(chunk | {"choices": [choice]})
        if answer.breaks_off == "error":
            yield event({"error": {"message": "The server had an error.", "type": "server_error"}})
        if answer.breaks_off:
            return
        for index in range(body.get("n", 1)):
            choice = {"index": index, "delta": {}, "finish_reason": answer.stop}
            yield event(chunk | {"choices": [choice]})
        yield from self.ending(chunk, answer, body)
        yield event("[DONE]")

    def refusal(self, refused: Refused) -> Json:
        """The body of an answer with another status."""
        error = {"message": refused.message, "type": refused.kind, "param": None, "code": None}
        return {"error": error}

    def message(self, answer: Answer) -> Json:
        """The message of a whole answer, which later requests send back."""
        found: Json = {"role": "assistant", "content": answer.text or None}
        if answer.reasoning:
            found["reasoning_content"] = answer.reasoning
        if answer.calls:
            found["tool_calls"] = [_call(call) for call in answer.calls]
        return found | ({"refusal": answer.refusal} if answer.refusal else {})

    def deltas(self, answer: Answer) -> Iterator[Json]:
        """The same in pieces."""
        calls = 0
        for place, part in enumerate(answer.parts):
            if isinstance(part, Call):
                yield from _call_deltas(part, calls)
                calls += 1
            else:
                yield from self.pieces(part, place)
        if answer.refusal:
            yield {"refusal": answer.refusal}

    def pieces(self, part: Part, place: int) -> Iterator[Json]:  # noqa: ARG002 - others need it
        """The deltas of a part of the answer that is no call."""
        if isinstance(part, Text):
            yield from ({"content": piece} for piece in part.pieces)
        elif isinstance(part, Thought):
            yield from ({"reasoning_content": piece} for piece in part.pieces)

    def usage(self, answer: Answer) -> Json:
        """The tokens."""
        return {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": answer.thinking_tokens},
        }

    def ending(self, chunk: Json, answer: Answer, body: Json) -> Iterator[bytes]:
        """The chunks after the finish reasons."""
        if body.get("stream_options", {}).get("include_usage"):
            yield event(chunk | {"choices": [], "usage": self.usage(answer)})

    def _changed(self, body: Json, given: Sequence[Answer]) -> str:
        """Whether an answer with calls came back otherwise than it was given."""
        for sent in body["messages"]:
            for answer in given:
                same = _call_ids(sent) & {call.id for call in answer.calls}
                if same and (found := self.altered(sent, answer, body)):
                    return found
        return ""

    def altered(self, sent: Json, answer: Answer, body: Json) -> str:  # noqa: ARG002
        """The difference of a turn from `answer`; empty where there is none."""
        given = self.message(answer)["tool_calls"]
        if [_meaning(call) for call in sent["tool_calls"]] != [_meaning(call) for call in given]:
            return "The tool calls have been altered."
        return "" if (sent["content"] or "") == answer.text else "The text has been altered."


def _call(call: Call) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _meaning(call: Json) -> tuple[str, str, object]:
    """The meaning of a call: some clients write its arguments in another form."""
    function = call["function"]
    return call["id"], function["name"], json.loads(function["arguments"] or "{}")


def _call_deltas(call: Call, index: int) -> Iterator[Json]:
    function = {"name": call.name, "arguments": ""}
    first = {"index": index, "id": call.id, "type": "function", "function": function}
    yield {"tool_calls": [first]}
    for piece in call.pieces:
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _logprobs(tokens: Sequence[str]) -> Json:
    items = [
        {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}
        for token in tokens
    ]
    return {"content": items, "refusal": None}


def _call_ids(sent: Mapping[str, Any]) -> set[str]:
    return {call["id"] for call in sent.get("tool_calls") or ()}


def _unanswered(messages: Sequence[Json]) -> str:
    """Every call is followed by its result, and every result by a call that asked for it."""
    waiting: set[str] = set()
    for sent in messages:
        if sent["role"] == "tool":
            if sent["tool_call_id"] not in waiting:
                return "A message with role 'tool' must follow the call it answers."
            waiting.discard(sent["tool_call_id"])
            continue
        if waiting:
            return f"These tool calls have no results: {sorted(waiting)}"
        waiting = _call_ids(sent)
    return f"These tool calls have no results: {sorted(waiting)}" if waiting else ""
