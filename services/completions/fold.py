"""A whole answer as the fold of its stream."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from services.admission.interrupt import ClosableIterator
from services.common.reasoning_fragments import Detail, gather
from services.domain.completion import Choice, Completion
from services.domain.conversation import (
    ContentPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolType,
)
from services.domain.events import (
    AnswerMembers,
    Batch,
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    Finished,
    RawContent,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from services.providers.translate.reasoning_details import encode


class Fold:
    """Combines the events of one stream, in their order."""

    def __init__(self) -> None:
        self._started = Started(completion_id="", model="", create_time_s=0)
        self._finished = Finished()
        self._choices: dict[int, _ChoiceFold] = {}
        self._system_fingerprint = ""
        self._raw_body: list[bytes] = []
        self._members: dict[str, msgspec.Raw] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Add the next events."""
        for event in events:
            if isinstance(event, Started):
                self._started = event
            elif isinstance(event, Finished):
                self._finished = event
            elif isinstance(event, ChoiceFinished):
                self._choice(event.index).finished = event
            elif isinstance(event, AnswerMembers):
                self._add_members(event)
            elif isinstance(event, RawContent):
                self._raw_body.append(event.data)
            else:
                self._choice(event.index).add(event)

    @property
    def answer(self) -> Completion:
        """The answer that the events so far make."""
        started, finished = self._started, self._finished
        return Completion(
            completion_id=started.completion_id,
            model=started.model,
            create_time_s=started.create_time_s,
            choices=[self._choices[index].choice(index) for index in sorted(self._choices)],
            usage=finished.usage or Usage(),
            notes=started.notes,
            service_tier=finished.service_tier,
            cost_nano_usd=finished.cost_nano_usd,
            system_fingerprint=self._system_fingerprint,
            extra_json=msgspec.json.encode(self._members) if self._members else b"",
            raw_body=b"".join(self._raw_body),
        )

    def _add_members(self, members: AnswerMembers) -> None:
        self._system_fingerprint = members.system_fingerprint or self._system_fingerprint
        if members.extra_json:
            self._members |= msgspec.json.decode(members.extra_json, type=dict[str, msgspec.Raw])

    def _choice(self, index: int) -> _ChoiceFold:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _ChoiceFold()
        return choice


def fold(events: Iterable[Event]) -> Completion:
    """Return the fold of the events of a whole answer."""
    folding = Fold()
    folding.add(events)
    return folding.answer


async def folded(batches: ClosableIterator[Batch]) -> Completion:
    """Return the fold of the batches."""
    folding = Fold()
    try:
        async for batch in batches:
            folding.add(batch)
    finally:
        await batches.aclose()
    return folding.answer


_UNFINISHED = ChoiceFinished(finish_reason="")


class _ChoiceFold:
    """One choice of the answer."""

    def __init__(self) -> None:
        self.finished = _UNFINISHED
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, _ToolCallFold] = {}
        self._reasoning_state = ""
        self._reasoning_details: list[Detail] = []
        self._extra: dict[str, object] = {}
        self._logprobs: dict[str, object] = {}

    def add(self, delta: Delta) -> None:
        match delta:
            case TextDelta():
                self._text.append(delta.text)
            case ReasoningDelta():
                self._add_reasoning(delta)
            case ToolCallDelta():
                self._add_tool_call(delta)
            case RefusalDelta():
                self._refusal.append(delta.text)
            case ReasoningStateDelta():
                self._reasoning_state = delta.state
            case ExtraDelta():
                _merge(self._extra, msgspec.json.decode(delta.extra_json, type=dict[str, object]))
        if delta.logprobs_json:
            self._add_logprobs(delta.logprobs_json)

    def choice(self, index: int) -> Choice:
        """Return the choice."""
        content: list[ContentPart] = []
        if self._reasoning:
            content.append(ReasoningPart(text="".join(self._reasoning)))
        if self._text:
            content.append(TextPart(text="".join(self._text)))
        message = Message(
            role="assistant",
            content=content,
            refusal="".join(self._refusal),
            reasoning_state=self._reasoning_state,
            reasoning_details_json=encode(self._reasoning_details),
            tool_calls=[self._tool_calls[at].tool_call() for at in sorted(self._tool_calls)],
            extra_json=msgspec.json.encode(self._extra) if self._extra else b"",
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finished.finish_reason,
            native_finish_reason=self.finished.native_finish_reason,
            logprobs_json=msgspec.json.encode(self._logprobs) if self._logprobs else b"",
            extra_json=self.finished.extra_json,
        )

    def _add_reasoning(self, delta: ReasoningDelta) -> None:
        if delta.text:
            self._reasoning.append(delta.text)
        if delta.details_json:
            for fragment in msgspec.json.decode(delta.details_json, type=list[Detail]):
                gather(fragment, self._reasoning_details)

    def _add_tool_call(self, delta: ToolCallDelta) -> None:
        call = self._tool_calls.get(delta.call_index)
        if call is None:
            call = self._tool_calls[delta.call_index] = _ToolCallFold()
        call.add(delta)

    def _add_logprobs(self, logprobs_json: bytes) -> None:
        """Append to the lists of tokens, such as `content`; a list that never came is null."""
        for name, value in msgspec.json.decode(logprobs_json, type=dict[str, object]).items():
            before = self._logprobs.setdefault(name, None)
            if isinstance(before, list) and isinstance(value, list):
                before.extend(value)
            elif value is not None:
                self._logprobs[name] = value


class _ToolCallFold:
    """One tool call of a choice."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []
        self._type: ToolType = ""
        self._extra_json = b""
        self._extra_content_json = b""

    def add(self, delta: ToolCallDelta) -> None:
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        self._type = self._type or delta.type
        self._extra_json = self._extra_json or delta.extra_json
        self._extra_content_json = self._extra_content_json or delta.extra_content_json
        self._arguments.append(delta.arguments)

    def tool_call(self) -> ToolCall:
        return ToolCall(
            id=self._id,
            name=self._name,
            arguments="".join(self._arguments),
            type=self._type,
            extra_json=self._extra_json,
            extra_content_json=self._extra_content_json,
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
