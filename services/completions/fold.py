"""A whole answer as the fold of its stream. Whole answers have no other source."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content


class Fold:
    """Combines the chunks of one stream, in their order."""

    def __init__(self) -> None:
        self._answer = pb.CreateChatCompletionResponse()
        self._choices: dict[int, _ChoiceFold] = {}

    def add(self, chunks: Iterable[pb.ChatCompletionChunk]) -> None:
        """Add the next chunks."""
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if event == "delta":
                delta = chunk.delta
                self._choice(delta.index).add(delta)
            elif event == "choice_finished":
                finished = chunk.choice_finished
                self._choice(finished.index).finish(finished)
            elif event == "started":
                self._start(chunk.started)
            elif event == "finished":
                self._finish(chunk.finished)

    @property
    def answer(self) -> pb.CreateChatCompletionResponse:
        """The answer that the chunks so far make."""
        del self._answer.choices[:]
        for index in sorted(self._choices):
            # Filled in place: to add a finished message would copy it.
            made = self._answer.choices.add()
            if index:
                made.index = index
            self._choices[index].fill(made)
        return self._answer

    def _choice(self, index: int) -> _ChoiceFold:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _ChoiceFold()
        return choice

    def _start(self, started: pb.CompletionStarted) -> None:
        self._answer.completion_id = started.completion_id
        self._answer.model = started.model
        self._answer.create_time.CopyFrom(started.create_time)
        if started.notes:
            self._answer.notes.extend(started.notes)

    def _finish(self, finished: pb.CompletionFinished) -> None:
        self._answer.usage.CopyFrom(finished.usage)
        self._answer.service_tier = finished.service_tier
        if finished.HasField("cost_nano_usd"):
            self._answer.cost_nano_usd = finished.cost_nano_usd


_UNFINISHED = pb.ChoiceFinished()


class _ChoiceFold:
    """One choice of the answer."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, _ToolCallFold] = {}
        self._reasoning_state = ""
        self._extra: dict[str, object] = {}
        self._logprobs: dict[str, list[object] | None] = {}
        self._finished = _UNFINISHED

    def add(self, delta: pb.CompletionDelta) -> None:
        kind = delta.WhichOneof("content")
        if kind == "text":
            self._text.append(delta.text)
        elif kind == "reasoning":
            self._reasoning.append(delta.reasoning)
        elif kind == "tool_call":
            self._add_tool_call(delta.tool_call)
        elif kind == "refusal":
            self._refusal.append(delta.refusal)
        elif kind == "reasoning_state":
            self._reasoning_state = delta.reasoning_state
        elif kind == "extra_json":
            _merge(self._extra, msgspec.json.decode(delta.extra_json, type=dict[str, object]))
        if delta.logprobs_json:
            self._add_logprobs(delta.logprobs_json)

    def finish(self, finished: pb.ChoiceFinished) -> None:
        self._finished = finished

    def fill(self, made: pb.Choice) -> None:
        """Write the choice into `made`."""
        made.finish_reason = self._finished.finish_reason
        made.native_finish_reason = self._finished.native_finish_reason
        if self._logprobs:
            made.logprobs_json = msgspec.json.encode(self._logprobs)
        message = made.message
        message.role = content.ROLE_ASSISTANT
        if self._reasoning:
            message.content.add().reasoning.text = "".join(self._reasoning)
        if self._text:
            message.content.add().text = "".join(self._text)
        if self._refusal:
            message.refusal = "".join(self._refusal)
        if self._reasoning_state:
            message.reasoning_state = self._reasoning_state
        if self._tool_calls:
            calls = (self._tool_calls[at].answer() for at in sorted(self._tool_calls))
            message.tool_calls.extend(calls)
        if self._extra:
            message.extra_json = msgspec.json.encode(self._extra)

    def _add_tool_call(self, delta: pb.ToolCallDelta) -> None:
        call = self._tool_calls.get(delta.index)
        if call is None:
            call = self._tool_calls[delta.index] = _ToolCallFold()
        call.add(delta)

    def _add_logprobs(self, logprobs_json: bytes) -> None:
        """Append to the lists of tokens, such as `content`; a list that never came is null."""
        for name, value in msgspec.json.decode(logprobs_json, type=dict[str, object]).items():
            tokens = self._logprobs.setdefault(name, None)
            if isinstance(value, list):
                self._logprobs[name] = [*(tokens or ()), *value]


class _ToolCallFold:
    """One tool call of a choice."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []
        self._type = content.TOOL_TYPE_UNSPECIFIED

    def add(self, delta: pb.ToolCallDelta) -> None:
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        self._type = self._type or delta.type
        self._arguments.append(delta.arguments)

    def answer(self) -> content.ToolCall:
        return content.ToolCall(
            id=self._id, name=self._name, arguments="".join(self._arguments), type=self._type
        )


def _merge(into: dict[str, object], fields: dict[str, object]) -> None:
    """Merge `fields` into `into`: lists, strings and objects grow, else the last value counts."""
    for name, value in fields.items():
        before = into.get(name)
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, str) and isinstance(value, str):
            into[name] = before + value
        else:
            into[name] = value
