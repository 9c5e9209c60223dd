"""Reasoning memory: sealed reasoning of the latest turns, for clients that do not send it back.

Providers want their sealed reasoning back with the tool calls that it led to. Many clients keep
nothing of an answer but its text and its tool calls. So an answer with tool calls is remembered by
the caller's account and each of these calls, with its ID, name and arguments as the caller sees
them; and a message with such calls but without reasoning gets it back, if it goes to a target
that can read it. Nothing else of the message changes. Some providers give one ID in many
conversations: then the messages before the call tell which it is of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from services.capabilities import family_name
from services.common.off_loop import off_loop
from services.common.plain_metrics import PlainMetrics
from services.completions.canonical_arguments import canonical
from services.domain.completion import WholeAnswer
from services.domain.conversation import Message, TextPart, ToolCall
from services.domain.events import Batch, Finished, ReasoningStateDelta, ToolCallDelta
from services.domain.spec import ChatCompletionSpec
from services.metering.tokens import estimate_prompt
from services.providers.base import Target
from services.storage.reasoning import ReasoningStore, TurnKeys

KEY_DIGEST_BYTES = 16


class _RememberedTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sealed reasoning of one answer."""

    dialect: str
    """Dialect of the provider that sealed it."""
    model: str
    """Public name of the model, without `-thinking`."""
    family: str
    """Family of the model by the provider's name."""
    state: str = ""
    """See `Message.reasoning_state`."""
    extra_contents: dict[str, bytes] = {}
    """`ToolCall.extra_content_json` by the IDs of the tool calls."""

    def as_message(self) -> Message:
        """Return a message that has this reasoning and nothing else."""
        contents = self.extra_contents.values()
        calls = [ToolCall(id="", name="", extra_content_json=content) for content in contents]
        return Message(role="assistant", reasoning_state=self.state, tool_calls=calls)

    def suits(self, target: Target) -> bool:
        """Whether a target can read it: the dialect and the model, or its family, are the same."""
        if self.dialect != target.channel.dialect:
            return False
        return self.model == target.public_model or self.family == _family(target)


_encode = msgspec.msgpack.Encoder().encode
_TURN = msgspec.msgpack.Decoder(_RememberedTurn)


class RecalledReasoning:
    """Remembered reasoning of the messages of one request."""

    def __init__(self, turns: Mapping[int, Sequence[_RememberedTurn | None]]) -> None:
        """`turns` are those of each tool call, by the index of its message."""
        self._turns = turns

    def prompt_tokens(self) -> int:
        """Return the most tokens that this adds to the prompt."""
        if not self._turns:
            return 0
        by_state = [
            {turn.state: turn for turn in of_message if turn is not None}
            for of_message in self._turns.values()
        ]
        recalled = [turn.as_message() for turns in by_state for turn in turns.values()]
        return estimate_prompt(ChatCompletionSpec(model="", messages=recalled)) if recalled else 0

    def restored(self, spec: ChatCompletionSpec, target: Target) -> ChatCompletionSpec:
        """Return the spec with all reasoning that its messages lack and the target can read."""
        if not self._turns:
            return spec
        messages = list(spec.messages)
        for index, turns in self._turns.items():
            messages[index] = _restored(messages[index], turns, target)
        return msgspec.structs.replace(spec, messages=messages)


class ReasoningMemory:
    """Remembers answers with tool calls, and restores their reasoning in later requests."""

    def __init__(self, store: ReasoningStore) -> None:
        self._store = store
        self._recalled = 0

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metrics of what is remembered and recalled."""
        counters.observable_gauge(
            "remembered_reasoning_bytes",
            "Sealed reasoning that is remembered for clients that do not send it back.",
            lambda: self._store.size,
        )
        counters.observable_counter(
            "recalled_turns_total",
            "Tool calls that came back without their reasoning, which was remembered.",
            lambda: self._recalled,
        )

    async def recall(
        self, account: str, spec: ChatCompletionSpec, size: int = 0
    ) -> RecalledReasoning:
        """Return what is remembered of the account's messages that lack reasoning.

        `size`: bytes of the spec that are read.
        """
        if not any(map(_lacks_reasoning, spec.messages)):
            return RecalledReasoning({})
        keys = await off_loop(size, _keys_of, spec.messages)
        asked = [key for of_message in keys.values() for pair in of_message for key in pair]
        found = dict(zip(asked, await self._store.recall(account, asked), strict=True))
        turns = {
            index: [_decoded(found[exact] or found[loose]) for exact, loose in of_message]
            for index, of_message in keys.items()
        }
        self._recalled += sum(turn is not None for of_each in turns.values() for turn in of_each)
        return RecalledReasoning(turns)

    def reader(self, account: str, spec: ChatCompletionSpec, target: Target) -> AnswerReader:
        """Return the reader of an answer of `target`, which remembers it when it is complete."""
        return AnswerReader(partial(self._remember, account, target, spec.messages))

    def _remember(
        self, account: str, target: Target, history: Sequence[Message], answers: Iterable[Message]
    ) -> None:
        """Remember the answers that called tools and have sealed reasoning."""
        for message in answers:
            calls = message.tool_calls
            contents = [call.extra_content_json for call in calls]
            if not calls or not (message.reasoning_state or any(contents)):
                continue
            turn = _RememberedTurn(
                dialect=target.channel.dialect,
                model=target.public_model,
                family=_family(target),
                state=message.reasoning_state,
                extra_contents={
                    call.id: content
                    for call, content in zip(calls, contents, strict=True)
                    if content
                },
            )
            asked = msgspec.structs.replace(message, reasoning_state="")
            pairs = _keys_of([*history, asked])[len(history)]
            keys = TurnKeys([exact for exact, _ in pairs], [loose for _, loose in pairs])
            self._store.remember(account, keys, _encode(turn))


class AnswerReader:
    """Reader of the tool calls and the sealed reasoning of one answer."""

    def __init__(self, remember: Callable[[Iterable[Message]], None]) -> None:
        self._remember = remember
        self._calls: dict[tuple[int, int], list[ToolCallDelta]] = {}
        self._states: dict[int, str] = {}

    def add(self, batch: Batch) -> None:
        """Read the next batch of a stream."""
        for event in batch:
            if type(event) is ToolCallDelta:
                self._calls.setdefault((event.index, event.call_index), []).append(event)
            elif type(event) is ReasoningStateDelta:
                self._states[event.index] = event.state
            elif type(event) is Finished:
                self._remember(self._messages())

    def add_whole(self, answer: WholeAnswer) -> None:
        """Read a whole answer."""
        self._remember(choice.message for choice in answer.choices)

    def _messages(self) -> Sequence[Message]:
        """The messages of all choices, with nothing but tool calls and reasoning."""
        tool_calls: dict[int, list[ToolCall]] = {}
        for (index, _), pieces in sorted(self._calls.items()):
            tool_calls.setdefault(index, []).append(_joined(pieces))
        return [
            Message(role="assistant", tool_calls=calls, reasoning_state=self._states.get(index, ""))
            for index, calls in tool_calls.items()
        ]


def _joined(pieces: Sequence[ToolCallDelta]) -> ToolCall:
    first = pieces[0]
    return ToolCall(
        id=first.id,
        name=first.name,
        arguments="".join(piece.arguments for piece in pieces),
        type=first.type,
        extra_content_json=b"".join(piece.extra_content_json for piece in pieces),
    )


def _restored(message: Message, found: Sequence[_RememberedTurn | None], target: Target) -> Message:
    turns = [turn if turn is not None and turn.suits(target) else None for turn in found]
    states = {turn.state for turn in turns if turn is not None}
    if len(states) != 1:
        return message  # No turn, or several turns whose order is not known.
    tool_calls = [
        call if turn is None else _with_content(call, turn.extra_contents.get(call.id, b""))
        for call, turn in zip(message.tool_calls, turns, strict=True)
    ]
    state = states.pop()
    return msgspec.structs.replace(
        message,
        reasoning_state=state,
        reasoning_details_json=b"" if state else message.reasoning_details_json,
        tool_calls=tool_calls,
    )


def _decoded(turn: bytes | None) -> _RememberedTurn | None:
    return _TURN.decode(turn) if turn else None


def _lacks_reasoning(message: Message) -> bool:
    """Whether a message called tools and has no sealed reasoning.

    One with `reasoning_details` lacks it, too: clients that put them together from a stream have
    merged or left out some, and providers take only what they gave.
    """
    return bool(message.tool_calls) and not message.reasoning_state


def _with_content(call: ToolCall, content_json: bytes) -> ToolCall:
    if not content_json or call.extra_content_json:
        return call
    return msgspec.structs.replace(call, extra_content_json=content_json)


def _family(target: Target) -> str:
    """Return the first word of the provider's name of the model, such as `claude`."""
    return family_name(target.model).partition("-")[0]


def _keys_of(messages: Sequence[Message]) -> Mapping[int, Sequence[tuple[str, str]]]:
    """Return the keys of the tool calls of each message that lacks reasoning, by its index.

    The first key of a call has the messages before it, the second one only the call itself.
    """
    keys: dict[int, Sequence[tuple[str, str]]] = {}
    before = _digest(b"")
    for index, message in enumerate(messages):
        calls = [_of_call(call) for call in message.tool_calls]
        if _lacks_reasoning(message):
            keys[index] = [(_with(before, call).hexdigest(), call.hex()) for call in calls]
        texts = [part.text for part in message.content if isinstance(part, TextPart)]
        said = (message.role, "".join(texts), message.tool_call_id, calls)
        before.update(msgspec.msgpack.encode(said))
    return keys


def _of_call(call: ToolCall) -> bytes:
    """Return a digest of a tool call, however the client writes its arguments."""
    parts = (call.id, call.name, canonical(call.arguments))
    return _digest(msgspec.msgpack.encode(parts)).digest()


def _digest(data: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=KEY_DIGEST_BYTES)


def _with(before: hashlib.blake2b, data: bytes) -> hashlib.blake2b:
    digest = before.copy()
    digest.update(data)
    return digest
