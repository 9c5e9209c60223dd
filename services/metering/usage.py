"""Usage to bill: the provider's report if it is plausible, otherwise our own count.

If the provider reports nothing, because it keeps no count or because the answer was cut, the
tokens that were passed on are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import usage_pb2

from services.metering.tokens import CounterName, RunningTokenCount, TokenCounter, count_prompt

COMPLETION_SLACK = 1.1
COMPLETION_SLACK_TOKENS = 64
"""Tolerance above the allowed tokens: some providers complete a last token or word."""

COUNT_MAX = 20_000_000
"""Plausible maximum of a call: ten times the largest context window of 2026."""


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """Usage to bill."""

    usage: usage_pb2.Usage
    """Consistent usage: no part exceeds its total. `source` is the origin of the counts."""
    flags: Sequence[str] = ()
    """Corrections, such as `completion_replaced`. For logs and the ledger."""
    counter: CounterName | None = None
    """Method of our own count. None: nothing was counted by us."""


class UsageMeter:
    """Usage meter of one answer. Each attempt has its own."""

    def __init__(
        self, spec: pb.ChatCompletionSpec, counter: TokenCounter, *, max_tokens: int | None = None
    ) -> None:
        """Create a meter. `max_tokens` is the limit per choice that was sent; None: unknown."""
        self._spec = spec
        self._counter = counter
        self._choices = max(1, spec.n)
        self._allowed = COUNT_MAX if max_tokens is None else max_tokens * self._choices
        self._completion_max = (
            COUNT_MAX
            if max_tokens is None
            else int(self._allowed * COMPLETION_SLACK) + COMPLETION_SLACK_TOKENS
        )
        self._text = RunningTokenCount(counter)
        self._reasoning = RunningTokenCount(counter)
        self._prompt: int | None = None
        self._final: usage_pb2.Usage | None = None
        self._drained = False
        self._is_refused = False

    def add(self, batch: Sequence[pb.ChatCompletionChunk]) -> None:
        """Count what the provider sent, in a fraction of a microsecond per chunk."""
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
        """Mark the rest of the answer as drained: the caller has left."""
        self._drained = True

    def metered(
        self,
        reported: usage_pb2.Usage | None = None,
        *,
        thinking_tokens: int = 0,
        completion_min: int = 0,
    ) -> Metered:
        """Return the usage to bill if the answer ends here, or has ended.

        `reported` is what the decoder knows of an unfinished answer, mostly its prompt. Where the
        caller ended the answer, `thinking_tokens` is the plausible reasoning of each choice, and
        `completion_min` the least that the provider bills for all of them.
        """
        if self._final is not None and _has_counts(self._final):
            return self._checked(self._final)
        return self._counted(reported, thinking_tokens * self._choices, completion_min)

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
        elif chunk.choice_finished.finish_reason == pb.FINISH_REASON_CONTENT_FILTER:
            self._is_refused = True

    def _checked(self, final: usage_pb2.Usage) -> Metered:
        """Return the provider's usage, with implausible counts replaced."""
        prompt = final.prompt_token_count
        completion = final.completion_token_count
        flags = []
        if not 0 <= prompt <= COUNT_MAX:
            prompt = self._count_prompt()
            flags.append("prompt_replaced")
        zero_is_plausible = self._is_refused and completion == 0
        if not zero_is_plausible and not 0 < completion <= self._completion_max:
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

    def _counted(
        self, reported: usage_pb2.Usage | None, plausible_thinking: int, completion_min: int
    ) -> Metered:
        """Return our own count, with the prompt as reported by the provider, if it was."""
        known = usage_pb2.Usage() if reported is None else reported
        prompt = known.prompt_token_count
        if not 0 < prompt <= COUNT_MAX:
            prompt = self._count_prompt()
        text = self._text.total
        thinking = max(self._reasoning.total, min(plausible_thinking, self._allowed - text))
        counted = max(text + thinking, completion_min)
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
"""Parts of a usage, and the maximum of each."""


def _consistent(
    reported: usage_pb2.Usage, prompt: int, completion: int
) -> tuple[usage_pb2.Usage, list[str]]:
    """Return a usage with these totals and the parts of `reported`, and a flag per clipped part."""
    usage = usage_pb2.Usage()  # Constructor arguments take three times as long.
    usage.prompt_token_count = prompt
    usage.completion_token_count = completion
    usage.total_token_count = prompt + completion
    flags = []
    for part, maximum in _PARTS:
        # Most parts are 0.
        if count := getattr(reported, part):
            fitting = min(max(0, count), maximum(usage))
            setattr(usage, part, fitting)
            if fitting != count:
                flags.append(f"{part.removesuffix('_token_count')}_clipped")
    return usage, flags


def _has_counts(usage: usage_pb2.Usage) -> bool:
    """Return whether a usage counts anything. Some servers send zeros instead of counts."""
    return bool(usage.prompt_token_count or usage.completion_token_count)
