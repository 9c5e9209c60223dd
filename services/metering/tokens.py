"""Token counts without the provider.

    estimate_prompt    before the call, for the hold: an upper estimate, in microseconds
    estimate_texts     the same of a plain request
    estimate_text      the same of one text
    RunningTokenCount  during the call: the tokens of the answer so far
    count_prompt       after the call, if the provider sent no usage: the probable number
    count_sent         the same with all else that was sent, if the caller ended the call

Counts use o200k, the vocabulary of OpenAI's newer models. Other vocabularies, such as
Anthropic's, split some texts into up to a third more tokens, so our counts err in the caller's
favour.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from services.domain.spec import ChatCompletionSpec
from services.metering.prompt_contents import contents, rare_contents

MODULE = "quicktok"
VOCABULARY: Final = "o200k_base"

WORDY = bytes(byte for byte in range(256) if byte >= 0x80 or byte == 0x20 or chr(byte).islower())
"""Bytes of words, in any script. With the vocabularies of 2026 a token has at least two of them
(4.1 in English, 2.5 to 4 in Russian, 2.3 to 5 in Chinese), but possibly only one digit, sign or
capital letter."""

WORDY_PER_TOKEN_MIN = 2

KNOWN_PAGES = bytes(
    page
    for first, last in (
        (0x00, 0x00),
        (0x03, 0x06),
        (0x09, 0x09),
        (0x0B, 0x0E),
        (0x1E, 0x1E),
        (0x20, 0x22),
        (0x25, 0x25),
        (0x30, 0x30),
        (0x4E, 0x9F),
        (0xAC, 0xD7),
        (0xFE, 0xFF),
    )
    for page in range(first, last + 1)
)
"""Pages (256 characters) of the scripts and signs that vocabularies have tokens for. A character of
another page may take a token for each of its bytes. For random characters of Chinese or Korean the
estimate is up to a third too low, too."""

TOOL_TOKENS_MAX = 500
"""Tokens that providers add to a prompt to explain tools. Anthropic adds about 350."""

BYTES_PER_TOKEN = 4
"""Typical number of bytes per token, for counts without a vocabulary."""

TOKENS_PER_MESSAGE = 4
"""Tokens of role and separators in the known formats."""

TOKENS_PER_CALL = 24
"""The most tokens around a tool or a call of one: chat templates write them as JSON with keys."""

PIECE_CHARS = 4096
"""Characters that are buffered before they are counted, since a split may add a token."""

CounterName = Literal["o200k_base", "estimate"]


class TokenCounter:
    """Counter of tokens. It counts by size until `load` has loaded a vocabulary."""

    def __init__(self) -> None:
        self._count: Callable[[str], int] = _by_size
        self.name: CounterName = "estimate"
        """Method of counting."""

    async def load(self) -> bool:
        """Load the vocabulary (a second, 80 MB), outside the event loop.

        Return False without the extra `tokens`: the counter then keeps counting by size.
        """
        try:
            self._count = await asyncio.to_thread(_load)
        except ImportError:
            return False
        self.name = VOCABULARY
        return True

    def count(self, text: str) -> int:
        """Return the tokens of `text`. Takes at most 15 us for 1 kB."""
        return self._count(text)


class RunningTokenCount(msgspec.Struct, gc=False):
    """Running token count of a text that arrives in pieces."""

    pieces: list[str] = []
    """Pieces since the last `close`. Append to it."""
    _tokens: int = 0

    def close(self, counter: TokenCounter) -> None:
        """Count the pieces so far for good, and drop them."""
        self._tokens = self.total(counter)
        self.pieces.clear()

    def total(self, counter: TokenCounter) -> int:
        """Return the tokens so far."""
        return self._tokens + (counter.count("".join(self.pieces)) if self.pieces else 0)


def estimate_prompt(spec: ChatCompletionSpec) -> int:
    """Return an upper estimate of the prompt's tokens, for any language and vocabulary."""
    texts, media_tokens = contents(spec)
    rare_texts, rare_tokens = rare_contents(spec)
    frame = 2 * TOKENS_PER_MESSAGE * len(spec.messages) + TOKENS_PER_CALL * _tools_and_calls(spec)
    frame += sum([max(0, len(message.content) - 1) for message in spec.messages])
    frame += TOOL_TOKENS_MAX if spec.tools else 0
    tokens = estimate_text("\n".join([*texts, *rare_texts]))
    return tokens + frame + media_tokens + rare_tokens


def estimate_texts(texts: Sequence[str]) -> int:
    """Return the same for a request of plain messages with these texts, one of each."""
    text = "\n".join(filter(None, texts))
    return estimate_text(text) + 2 * TOKENS_PER_MESSAGE * len(texts)


def estimate_text(text: str) -> int:
    """Return an upper estimate of a text's tokens, for any language and vocabulary."""
    encoded = text.encode()
    size, other = len(encoded), len(encoded.translate(None, WORDY))
    words = -(-(size - other) // WORDY_PER_TOKEN_MIN)
    if size > len(text):
        units = text.encode("utf-16-le")[1::2]
        words += -(-3 * len(units.translate(None, KNOWN_PAGES)) // 2)
    return words + other


def count_prompt(spec: ChatCompletionSpec, counter: TokenCounter) -> int:
    """Return the probable number of tokens of a prompt."""
    texts, media_tokens = contents(spec)
    frame = TOKENS_PER_MESSAGE * len(spec.messages)
    return counter.count("\n".join(texts)) + frame + media_tokens


def count_sent(spec: ChatCompletionSpec, counter: TokenCounter) -> int:
    """Return the tokens of a prompt with all that a provider may count of it."""
    texts, tokens = rare_contents(spec)
    frames = _tools_and_calls(spec) * TOKENS_PER_CALL // 2
    return count_prompt(spec, counter) + counter.count("\n".join(texts)) + tokens + frames


def _tools_and_calls(spec: ChatCompletionSpec) -> int:
    return len(spec.tools) + sum([len(message.tool_calls) for message in spec.messages])


def _by_size(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _load() -> Callable[[str], int]:
    """Import the vocabulary's package, an extra that is slow to load."""
    count: Callable[[str], int] = importlib.import_module(MODULE).get_encoding(VOCABULARY).count
    return count
