"""Usage to bill: the provider's report if it is plausible, otherwise our own count.

If the provider reports nothing, because it keeps no count or because the answer was cut, the
tokens that were passed on are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from services.common.off_loop import off_loop
from services.domain.completion import WholeAnswer
from services.domain.events import (
    ChoiceFinished,
    Event,
    Finished,
    RawContent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.spec import ChatCompletionSpec, read_bytes
from services.domain.usage import NOT_REPORTED, Usage, UsageSource, parts_of
from services.metering.cache_writes import wanted_cache_write
from services.metering.tokens import (
    PIECE_CHARS,
    CounterName,
    RunningTokenCount,
    TokenCounter,
    count_prompt,
    count_sent,
)
from services.metering.usage_parts import consistent_usage

COMPLETION_SLACK = 1.1
COMPLETION_SLACK_TOKENS = 64
"""Tolerance above the allowed tokens: some providers complete a last token or word."""

FRAME_BYTES_MIN = 80
"""The fewest bytes of an event of a stream around its text, where it is passed on as it is."""

COUNT_MAX = 20_000_000
"""Plausible maximum of a call: ten times the largest context window of 2026."""


class Metered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Usage to bill."""

    usage: Usage
    """Consistent usage: no part exceeds its total. `source` is the origin of the counts."""
    flags: Sequence[str] = ()
    """Corrections, such as `completion_replaced`. For logs and the ledger."""
    counter: CounterName | None = None
    """Method of our own count. None: nothing was counted by us."""


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that may be billed for a call which its caller has ended, beside the known ones."""

    thinking_tokens: int = 0
    """Plausible reasoning of each choice."""
    completion_min: int = 0
    """The least that the provider bills for all choices."""
    prompt_tokens: int = 0
    """The most tokens of the prompt that the request itself does not show: media, and remembered
    reasoning."""


class UsageMeter(msgspec.Struct, eq=False):
    """Usage meter of one answer."""

    spec: ChatCompletionSpec
    """The request as it is sent. It may lack its prompt where `read_prompt` is set."""
    counter: TokenCounter
    """Counts what the provider does not report."""
    max_tokens: int = COUNT_MAX
    """The limit that was sent, for all choices together."""
    read_prompt: Callable[[], ChatCompletionSpec] | None = None
    """Returns the request with its prompt."""
    unread: Callable[[], Sequence[Event]] | None = None
    """Returns what was passed on since the last call, of an answer that is passed on as it is: it
    is read only where it must be counted."""
    size: int = 0
    """Number of characters counted so far."""
    _prompt: int | None = None
    _text: RunningTokenCount = msgspec.field(default_factory=RunningTokenCount)
    _reasoning: RunningTokenCount = msgspec.field(default_factory=RunningTokenCount)
    _close_at: int = PIECE_CHARS
    """The size at which pieces of text are counted and dropped."""
    _recount_at: int = sys.maxsize
    """The size at which `add` asks for a count."""
    _look_at: int = PIECE_CHARS
    """The size at which one of these is due."""
    _unread_whole: WholeAnswer | None = None
    _final: Usage | None = None
    _is_refused: bool = False
    _is_drained: bool = False

    def prompt_spec(self) -> ChatCompletionSpec:
        """Return the request as it is sent, with its prompt."""
        return self.spec if self.read_prompt is None else self.read_prompt()

    @property
    def awaits_count(self) -> bool:
        """Whether a count with the next batch was asked for, and no batch has come since."""
        return self._recount_at == 0

    def restart(self) -> None:
        """Forget the answer so far: another one is given in its place."""
        self._text, self._reasoning = RunningTokenCount(), RunningTokenCount()
        self._final, self._is_refused, self.size = None, False, 0
        self.unread = self._unread_whole = None
        self._close_at = self._look_at = PIECE_CHARS
        self._recount_at = sys.maxsize

    def recount(self, size: int) -> None:
        """Let `add` ask for a count at this size of the answer. 0: at the next batch."""
        self._recount_at = size
        self._look_at = min(size, self._close_at)

    def add(self, batch: Sequence[Event]) -> bool:
        """Count what the provider sent, in a fraction of a microsecond per event.

        Return whether usage and cost are to be counted: the answer has ended, or is as long as was
        set by `recount`.
        """
        text, has_ended = "", False
        for event in batch:
            if type(event) is TextDelta:
                text += event.text
                continue
            if text:
                self._add_text(text)
                text = ""
            if type(event) is ChoiceFinished:
                self._is_refused = self._is_refused or event.finish_reason == "content_filter"
            elif type(event) is Finished:
                self._final, has_ended = event.usage, True
            else:
                self._add_other(event)
        if text:
            self._text.pieces.append(text)
            self.size += len(text)
        return has_ended or (self.size >= self._look_at and self._look())

    def add_whole(self, answer: WholeAnswer) -> None:
        """Count a whole answer. Its text is read only where it must be counted."""
        self._unread_whole, self._final = answer, answer.usage

    def drain(self) -> None:
        """Mark the rest of the answer as drained: the caller has left."""
        self._is_drained = True

    def metered(self, reported: Usage | None = None, unseen: Unseen | None = None) -> Metered:
        """Return the usage to bill if the answer ends here, or has ended.

        `reported` is what the decoder knows of an unfinished answer, mostly its prompt. `unseen` is
        given where the caller ended the answer: all that was sent counts then.
        """
        final = self._final
        if final is None:
            return self._counted(self._with_write_time(reported or Usage()), unseen)
        prompt, completion = final.prompt_token_count, final.completion_token_count
        replaced: Sequence[str] = ()
        if not (0 < prompt <= COUNT_MAX and 0 < completion <= self.max_tokens):
            if not (prompt or completion):  # Some servers send zeros instead of counts.
                return self._counted(self._with_write_time(reported or final), unseen)
            prompt, completion, replaced = self._plausible(final)
        source: UsageSource = "drained" if self._is_drained else "provider"
        if not (replaced or any(parts_of(final))):
            total = prompt + completion
            return Metered(usage=replace(final, total_token_count=total, source=source))
        final = self._with_write_time(final)
        if replaced:
            usage, clipped = consistent_usage(final, prompt, completion, "counted")
            return Metered(usage=usage, flags=(*replaced, *clipped), counter=self.counter.name)
        usage, clipped = consistent_usage(final, prompt, completion, source)
        return Metered(usage=usage, flags=clipped)

    def tokens_so_far(self) -> int:
        """Return our count of the tokens that were generated so far."""
        self._read_unread()
        return self._text.total(self.counter) + self._reasoning.total(self.counter)

    def _look(self) -> bool:
        """Count pieces of text where they are due. Return whether a count was asked for."""
        if self.size >= self._close_at:
            self._text.close(self.counter)
            self._reasoning.close(self.counter)
            self._close_at = self.size + PIECE_CHARS
        self._look_at = min(self._close_at, self._recount_at)
        return self.size >= self._recount_at

    def _add_text(self, text: str) -> None:
        self._text.pieces.append(text)
        self.size += len(text)

    def _add_other(self, event: Event) -> None:
        match event:
            case ReasoningDelta():
                self._reasoning.pieces.append(event.text)
                self.size += len(event.text)
            case ToolCallDelta():
                self._add_text(event.name)
                self._add_text(event.arguments)
            case RefusalDelta():
                self._add_text(event.text)
            case RawContent():
                frames = event.data.count(b"\n\n")
                self.size += max(frames, len(event.data) - FRAME_BYTES_MIN * frames)

    def _read_unread(self) -> None:
        if self._unread_whole is not None:
            events, self._unread_whole = self._unread_whole.events(), None
            self.add(events)
        if self.unread is not None:
            size = self.size
            self.add(self.unread())
            self._close_at -= self.size - size
            self._look_at = min(self._close_at, self._recount_at)
            self.size = size

    async def prepare_prompt_usage(self, known: Usage | None) -> None:
        """Count a prompt that `known` does not count, so that `prompt_usage` takes no time."""
        if not _has_prompt(known):
            await off_loop(read_bytes(self.prompt_spec()), self._count_prompt, Usage())

    def prompt_usage(self, known: Usage | None) -> Usage:
        """Return the usage of the prompt: as in the provider's report so far, else our count."""
        if known is None or not _has_prompt(known):
            return Usage(prompt_token_count=self._count_prompt(known or Usage()), source="counted")
        known = self._with_write_time(known)
        reported = replace(known, thinking_token_count=0, extra_json=b"")
        usage, _ = consistent_usage(reported, known.prompt_token_count, 0, "provider")
        return usage

    @property
    def _completion_max(self) -> int:
        """The most tokens that are plausible for the answer."""
        if self.max_tokens == COUNT_MAX:
            return COUNT_MAX
        return int(self.max_tokens * COMPLETION_SLACK) + COMPLETION_SLACK_TOKENS

    def _plausible(self, final: Usage) -> tuple[int, int, Sequence[str]]:
        """Return prompt and completion of the provider's usage, and which of them is our count."""
        self._read_unread()
        prompt = final.prompt_token_count
        completion = final.completion_token_count
        flags = []
        if not _has_prompt(final):  # No prompt has no tokens: the provider left them out.
            prompt = self._count_prompt(final)
            flags.append("prompt_replaced")
        zero_is_plausible = self._is_refused and completion == 0
        if not zero_is_plausible and not 0 < completion <= self._completion_max:
            delivered = self.tokens_so_far()
            if completion or delivered:
                completion = delivered
                flags.append("completion_replaced")
        return prompt, completion, flags

    def _counted(self, known: Usage, unseen: Unseen | None) -> Metered:
        """Return our own count, with the prompt as reported by the provider, if it was."""
        self._read_unread()
        if not _has_prompt(known):
            known = self._with_prompt(known, unseen)
        given = unseen or Unseen()
        text = self._text.total(self.counter)
        plausible = min(given.thinking_tokens * (self.spec.n or 1), self.max_tokens - text)
        thinking = max(self._reasoning.total(self.counter), plausible)
        counted = max(text + thinking, given.completion_min)
        completion = max(counted, min(known.completion_token_count, self._completion_max))
        prompt = known.prompt_token_count
        usage, flags = consistent_usage(known, prompt, completion, "counted", thinking)
        return Metered(usage=usage, flags=flags, counter=self.counter.name)

    def _with_prompt(self, known: Usage, unseen: Unseen | None) -> Usage:
        """Return `known` with our count of the prompt."""
        if unseen is None:
            return replace(known, prompt_token_count=self._count_prompt(known))
        spec = self.prompt_spec()
        sent = count_sent(spec, self.counter) + unseen.prompt_tokens
        kept_for_an_hour = wanted_cache_write(spec)
        if kept_for_an_hour is None:
            return replace(known, prompt_token_count=sent)
        return replace(
            known,
            prompt_token_count=sent,
            cache_write_token_count=sent,
            cache_write_1h_token_count=sent if kept_for_an_hour else 0,
        )

    def _with_write_time(self, reported: Usage) -> Usage:
        """Return `reported` with the time of its cache writes that the request asks for.

        Where marks of both times were sent and the provider does not tell them apart, all writes
        count as kept for an hour.
        """
        if reported.cache_write_1h_token_count != NOT_REPORTED:
            return reported
        kept = reported.cache_write_token_count if wanted_cache_write(self.prompt_spec()) else 0
        return replace(reported, cache_write_1h_token_count=kept)

    def _count_prompt(self, reported: Usage) -> int:
        """Count the prompt, which has at least what the provider reports as cached."""
        if self._prompt is None:
            self._prompt = count_prompt(self.prompt_spec(), self.counter)
        cached = reported.cache_read_token_count + reported.cache_write_token_count
        return max(self._prompt, min(cached, COUNT_MAX))


def _has_prompt(usage: Usage | None) -> bool:
    """Return whether a usage counts the prompt, plausibly."""
    return usage is not None and 0 < usage.prompt_token_count <= COUNT_MAX
