"""What a completion is billed for: what the provider says, or what we counted.

The provider is believed where what it says is possible. Where it says nothing, because it
keeps no count or because the answer was cut, the tokens that were passed on are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import usage_pb2

from services.metering.tokens import CounterName, RunningTokenCount, TokenCounter, count_prompt

COMPLETION_SLACK = 1.1
COMPLETION_SLACK_TOKENS = 64
"""How far a provider may exceed what was allowed: some let a last token or word end."""

COUNT_MAX = 20_000_000
"""No call takes more tokens: ten times the largest context window of 2026."""


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """What to bill."""

    usage: usage_pb2.Usage
    """Consistent: no part exceeds its whole. `source` says who counted."""
    flags: Sequence[str] = ()
    """What was not believed, such as `completion_replaced`. For logs and the ledger."""
    counter: CounterName | None = None
    """How our own share was counted. None: there is none."""


class UsageMeter:
    """Follows one answer. Made anew for every attempt."""

    def __init__(
        self, spec: pb.ChatCompletionSpec, counter: TokenCounter, *, max_tokens: int | None = None
    ) -> None:
        """`max_tokens` is what was allowed for one choice as it was sent; None: not known."""
        self._spec = spec
        self._counter = counter
        choices = max(1, spec.n)
        self._completion_max = (
            COUNT_MAX
            if max_tokens is None
            else int(max_tokens * choices * COMPLETION_SLACK) + COMPLETION_SLACK_TOKENS
        )
        self._text = RunningTokenCount(counter)
        self._reasoning = RunningTokenCount(counter)
        self._prompt: int | None = None
        self._final: usage_pb2.Usage | None = None
        self._drained = False

    def add(self, batch: Sequence[pb.ChatCompletionChunk]) -> None:
        """Takes note of what the provider sent: a fraction of a microsecond for each chunk."""
        texts: list[str] = []
        for chunk in batch:
            if text := chunk.delta.text:
                texts.append(text)
                continue
            if texts:
                self._text.add("".join(texts))
                texts.clear()
            self._add_other(chunk)
        if texts:
            self._text.add("".join(texts))

    def drain(self) -> None:
        """The caller has left; what follows is read for its usage alone."""
        self._drained = True

    def metered(self, reported: usage_pb2.Usage | None = None) -> Metered:
        """What to bill if the answer ends here, or has ended.

        `reported` is what the decoder knows of an answer that has not: its prompt, mostly.
        """
        if self._final is not None and _says_something(self._final):
            return self._checked(self._final)
        return self._counted(reported)

    def _add_other(self, chunk: pb.ChatCompletionChunk) -> None:
        if chunk.HasField("delta"):
            delta = chunk.delta
            content = delta.WhichOneof("content")
            if content == "reasoning":
                self._reasoning.add(delta.reasoning)
            elif content == "tool_call":
                self._text.add(delta.tool_call.name)
                self._text.add(delta.tool_call.arguments)
            elif content == "refusal":
                self._text.add(delta.refusal)
        elif chunk.HasField("finished"):
            self._final = chunk.finished.usage

    def _checked(self, final: usage_pb2.Usage) -> Metered:
        """The provider's usage, without what is impossible in it."""
        prompt = final.prompt_token_count
        completion = final.completion_token_count
        flags = []
        if not 0 <= prompt <= COUNT_MAX:
            prompt = self._count_prompt()
            flags.append("prompt_replaced")
        if not 0 < completion <= self._completion_max:
            delivered = self._text.total + self._reasoning.total
            if completion or delivered:
                completion = delivered
                flags.append("completion_replaced")
        source = (
            usage_pb2.USAGE_SOURCE_DRAINED if self._drained else usage_pb2.USAGE_SOURCE_PROVIDER
        )
        counter = self._counter.name if flags else None
        usage, clipped = _consistent(final, prompt, completion)
        usage.source = usage_pb2.USAGE_SOURCE_COUNTED if flags else source
        flags += clipped
        return Metered(usage=usage, flags=tuple(flags), counter=counter)

    def _counted(self, reported: usage_pb2.Usage | None) -> Metered:
        """Our own count, with the prompt as the provider has reported it, if it has."""
        known = usage_pb2.Usage() if reported is None else reported
        prompt = known.prompt_token_count
        if not 0 < prompt <= COUNT_MAX:
            prompt = self._count_prompt()
        thinking = self._reasoning.total
        counted = self._text.total + thinking
        completion = max(counted, min(known.completion_token_count, self._completion_max))
        usage, flags = _consistent(known, prompt, completion)
        usage.thinking_token_count = max(usage.thinking_token_count, thinking)
        usage.source = usage_pb2.USAGE_SOURCE_COUNTED
        return Metered(usage=usage, flags=tuple(flags), counter=self._counter.name)

    def _count_prompt(self) -> int:
        if self._prompt is None:
            self._prompt = count_prompt(self._spec, self._counter)
        return self._prompt


_PARTS: Sequence[tuple[str, Callable[[usage_pb2.Usage], int]]] = (
    ("cache_read_token_count", lambda usage: usage.prompt_token_count),
    (
        "cache_write_token_count",
        lambda usage: usage.prompt_token_count - usage.cache_read_token_count,
    ),
    ("cache_write_1h_token_count", lambda usage: usage.cache_write_token_count),
    ("thinking_token_count", lambda usage: usage.completion_token_count),
)
"""Parts of a usage, and how much of each there can be."""


def _consistent(
    said: usage_pb2.Usage, prompt: int, completion: int
) -> tuple[usage_pb2.Usage, list[str]]:
    """A usage with these totals and the parts of `said`, and a flag where these do not fit."""
    usage = usage_pb2.Usage()  # Arguments would take three times as long.
    usage.prompt_token_count = prompt
    usage.completion_token_count = completion
    usage.total_token_count = prompt + completion
    flags = []
    for part, room in _PARTS:
        # Most say nothing of most parts.
        if count := getattr(said, part):
            fitting = min(max(0, count), room(usage))
            setattr(usage, part, fitting)
            if fitting != count:
                flags.append(f"{part.removesuffix('_token_count')}_clipped")
    return usage, flags


def _says_something(usage: usage_pb2.Usage) -> bool:
    """Some servers send zeros where they do not count."""
    return bool(usage.prompt_token_count or usage.completion_token_count)
