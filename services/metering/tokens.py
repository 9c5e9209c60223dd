"""How many tokens something has, without asking anybody.

Three answers, for three questions:

    estimate_prompt   before the call, for the hold: rather too many, in microseconds
    count_prompt      after it, where the provider kept silent: what it probably was
    Tally             during it, what the answer has come to so far

Counting is done with o200k, the vocabulary of OpenAI's newer models. Others, Anthropic's
among them, cut some texts into up to a third more tokens: what we count ourselves errs in
the caller's favour.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from typing import Final, Literal

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2

MODULE = "quicktok"
VOCABULARY: Final = "o200k_base"

WORDY = bytes(byte for byte in range(256) if byte >= 0x80 or chr(byte).isalpha() or byte == 0x20)
"""Bytes of words, in any script. With the vocabularies of 2026 a token has at least two of them
(English has 4.1 in one, Russian 2.5 to 4, Chinese 2.3 to 5); of digits and signs it may have one.
Random base64 comes out a seventh too low: what exceeds a hold is settled all the same."""

WORDY_PER_TOKEN_MIN = 2

TOOL_TOKENS_MAX = 500
"""What providers add to a prompt to explain tools: Anthropic about 350."""

BYTES_PER_TOKEN = 4
"""What most texts have: for counting without a vocabulary."""

TOKENS_PER_MESSAGE = 4
"""Role and separators, in the formats that are known."""

IMAGE_TOKENS = 2000
"""A large picture; the providers' formulas give from 85 to about this."""

FILE_TOKENS = 2000
"""A page or two. More is learned from the bill alone where a file is passed by reference."""

FILE_BYTES_PER_TOKEN = 20
AUDIO_BYTES_PER_TOKEN = 400
"""Of base64. A second of MP3 at 32 kbit/s is 5 kB and some 10 tokens."""

PIECE_CHARS = 4096
"""How much of an answer is kept until it is counted: a split may add a token."""

CounterName = Literal["o200k_base", "estimate"]


class TokenCounter:
    """Counts the tokens of texts: by size, until `load` has found something better."""

    def __init__(self) -> None:
        self._count: Callable[[str], int] = _by_size
        self.name: CounterName = "estimate"
        """How it counts."""

    async def load(self) -> bool:
        """Loads the vocabulary (a second, 80 MB), off the event loop.

        False where the extra `tokens` is not installed: counting goes on by size.
        """
        try:
            self._count = await asyncio.to_thread(_load)
        except ImportError:
            return False
        self.name = VOCABULARY
        return True

    def count(self, text: str) -> int:
        """The tokens of `text`. Takes 15 us for 1 kB at most."""
        return self._count(text)


class RunningTokenCount:
    """Counts a text that comes in pieces, in bounded memory."""

    __slots__ = ("_chars", "_counter", "_pieces", "_tokens")

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._pieces: list[str] = []
        self._chars = 0
        self._tokens = 0

    def add(self, piece: str) -> None:
        """Takes note of one more piece."""
        self._pieces.append(piece)
        self._chars += len(piece)
        if self._chars >= PIECE_CHARS:
            self._tokens += self._rest()
            self._pieces.clear()
            self._chars = 0

    @property
    def total(self) -> int:
        """The tokens so far."""
        return self._tokens + self._rest()

    def _rest(self) -> int:
        return self._counter.count("".join(self._pieces)) if self._pieces else 0


def estimate_prompt(spec: pb.ChatCompletionSpec) -> int:
    """An upper estimate of the prompt's tokens, in any language and in any vocabulary."""
    texts, media_tokens = _contents(spec)
    text = "\n".join(texts).encode()
    other = len(text.translate(None, WORDY))
    words = -(-(len(text) - other) // WORDY_PER_TOKEN_MIN)
    frame = 2 * TOKENS_PER_MESSAGE * len(spec.messages) + (TOOL_TOKENS_MAX if spec.tools else 0)
    return words + other + frame + media_tokens


def count_prompt(spec: pb.ChatCompletionSpec, counter: TokenCounter) -> int:
    """The prompt's probable tokens."""
    texts, media_tokens = _contents(spec)
    frame = TOKENS_PER_MESSAGE * len(spec.messages)
    return counter.count("\n".join(texts)) + frame + media_tokens


def _contents(spec: pb.ChatCompletionSpec) -> tuple[Sequence[str], int]:
    """All texts of a prompt, and the tokens of what is not text."""
    texts = []
    media_tokens = 0
    for message in spec.messages:
        for part in message.content:
            if text := part.text or part.reasoning.text:
                texts.append(text)
            else:
                media_tokens += _media_tokens(part)
        for call in message.tool_calls:
            texts += (call.name, call.arguments)
    for tool in spec.tools:
        texts += (tool.name, tool.description, tool.parameters_json.decode(errors="replace"))
    if spec.HasField("response_format"):
        texts.append(spec.response_format.schema_json.decode(errors="replace"))
    return texts, media_tokens


def _media_tokens(part: content_pb2.ContentPart) -> int:
    if part.HasField("image"):
        return IMAGE_TOKENS
    if part.HasField("audio"):
        return -(-len(part.audio.base64) // AUDIO_BYTES_PER_TOKEN)
    if part.HasField("file"):
        return FILE_TOKENS + len(part.file.uri) // FILE_BYTES_PER_TOKEN
    return 0


def _by_size(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _load() -> Callable[[str], int]:
    """Imported here because few need it: it is an extra, and slow to load."""
    count: Callable[[str], int] = importlib.import_module(MODULE).get_encoding(VOCABULARY).count
    return count
