"""Cache marks that the gateway sets: for Anthropic's API, which caches only what is marked.

Where the beginning of a long prompt comes again within five minutes, and the caller has marked
nothing, the prompt is marked at up to three places: after the instructions, where the earlier
prompt ended, and at its own end. Writing to the cache costs a quarter more than other tokens, and
reading a tenth, so the marks pay from the next call on.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from services.admission.call_plan import CACHED_PROMPT_TOKENS_MIN, MARKED_DIALECT, CallPlan
from services.admission.ticket import Ticket
from services.clock import Clock
from services.common.off_loop import off_loop
from services.completions.completion_call import CompletionCall
from services.domain.conversation import ImagePart, Message, TextPart
from services.domain.spec import ChatCompletionSpec
from services.metering.cache_writes import wanted_cache_write
from services.providers.base import Notes, Target

REMEMBERED_S = 300.0
"""How long a prompt is remembered, which is how long the provider keeps one."""
PREFIXES_MAX = 50_000
"""The most beginnings of prompts that are remembered; the oldest are forgotten."""
BYTES_PER_TOKEN = 4
NAME = "cache_control"
MARK = b'{"type":"ephemeral"}'

Marked: TypeAlias = Callable[[ChatCompletionSpec, Target, Notes], ChatCompletionSpec]
"""Returns a request with the marks that a target takes, and notes them."""

_encode = msgspec.msgpack.Encoder().encode


class _Prefix(NamedTuple):
    """Beginning of a prompt: the tools, and so many messages as its place in a list."""

    digest: bytes
    size: int
    """Bytes of text."""

    @property
    def is_long(self) -> bool:
        """Whether providers cache it."""
        return self.size >= CACHED_PROMPT_TOKENS_MIN * BYTES_PER_TOKEN


class PromptMarks:
    """Remembers the prompts of the latest minutes, as digests, and marks those that come again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[bytes, float] = {}
        """Until when each digest is remembered, the oldest first."""

    async def of(self, call: CompletionCall, ticket: Ticket, size: int) -> Marked | None:
        """Return the marks of a call, whose request has `size` bytes, and remember its prompt.

        None: its prompt is short or new, or has marks of its own.
        """
        spec, plan = call.request.spec, ticket.plan
        is_short = ticket.tokens - ticket.max_tokens < CACHED_PROMPT_TOKENS_MIN
        if is_short or wanted_cache_write(spec) is not None:
            return None
        prefixes = await off_loop(size, _prefixes, plan, spec)
        places = self._places(prefixes, _instructions(spec.messages))
        meter = ticket.meter

        def marked(spec: ChatCompletionSpec, target: Target, notes: Notes) -> ChatCompletionSpec:
            sent = spec
            if target.channel.dialect == MARKED_DIALECT and NAME not in target.channel.quirks.drops:
                sent = _with_marks(spec, places)
                notes.mapped(NAME, "The prompt begins as an earlier one: it is to be cached.")
            # A call that ends early is charged for what is written to the cache.
            meter.spec = sent
            return sent

        return marked if places else None

    def _places(self, prefixes: Sequence[_Prefix], instructions: int) -> Sequence[int]:
        """Return after how many messages the marks go, and remember the prompt."""
        now = self._clock.now()
        known = [
            number
            for number, prefix in enumerate(prefixes)
            if prefix.is_long and self._seen.get(prefix.digest, 0.0) >= now
        ]
        end = len(prefixes) - 1
        for number in (instructions, end):
            if prefixes[number].is_long:
                self._remember(prefixes[number].digest, now + REMEMBERED_S)
        if not known:
            return ()
        places = {known[-1]}
        if prefixes[instructions].is_long:
            places.add(instructions)
        if known[-1] > instructions:
            places.add(end)
        return sorted(places)

    def _remember(self, digest: bytes, until: float) -> None:
        self._seen.pop(digest, None)  # So that it becomes the last one.
        self._seen[digest] = until
        if len(self._seen) > PREFIXES_MAX:
            del self._seen[next(iter(self._seen))]


def _instructions(messages: Sequence[Message]) -> int:
    """Return the number of instructions that begin a conversation."""
    others = (
        number
        for number, message in enumerate(messages)
        if message.role not in ("system", "developer")
    )
    return next(others, len(messages))


def _prefixes(plan: CallPlan, spec: ChatCompletionSpec) -> Sequence[_Prefix]:
    """Return each beginning of a prompt: without messages, with the first one, and so on."""
    told = hashlib.blake2b(f"{plan.caller.account}\0{plan.model}\0".encode(), digest_size=16)
    size = 0
    found = []
    for piece in _pieces(spec):
        told.update(piece)
        size += len(piece)
        found.append(_Prefix(told.copy().digest(), size))
    return found


def _pieces(spec: ChatCompletionSpec) -> Iterator[bytes]:
    """Yield the tools, then each message, without the data of media."""
    yield _encode(spec.tools) if spec.tools else b""
    for message in spec.messages:
        if all(isinstance(part, TextPart) for part in message.content):
            yield _encode(message)
        else:
            parts = [
                part if isinstance(part, TextPart) else TextPart(text=type(part).__name__)
                for part in message.content
            ]
            yield _encode(msgspec.structs.replace(message, content=parts))


def _with_marks(spec: ChatCompletionSpec, places: Sequence[int]) -> ChatCompletionSpec:
    messages, tools = [*spec.messages], [*spec.tools]
    for place in places:
        if place == 0:
            tools[-1] = msgspec.structs.replace(tools[-1], cache_control_json=MARK)
        elif _takes_mark(messages[place - 1]):
            message = messages[place - 1]
            messages[place - 1] = msgspec.structs.replace(message, cache_control_json=MARK)
    return msgspec.structs.replace(spec, messages=messages, tools=tools)


def _takes_mark(message: Message) -> bool:
    """Return whether a message ends with something that can be marked."""
    if message.role == "assistant" or not message.content:
        return False
    last = message.content[-1]
    return isinstance(last, ImagePart) or (isinstance(last, TextPart) and bool(last.text.strip()))
