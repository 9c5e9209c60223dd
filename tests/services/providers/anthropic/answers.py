"""Answers folded from chunks, and bodies that arrive in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.providers.base import Decoder
from services.providers.sse_parser import SseParser


@dataclass
class Answer:
    """Answer that a caller assembles from the chunks."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    ending: list[pb.ChatCompletionChunk] = field(default_factory=list)


def gathered(chunks: Sequence[pb.ChatCompletionChunk]) -> Answer:
    """Fold `chunks` into an answer."""
    answer = Answer()
    for chunk in chunks:
        if chunk.WhichOneof("event") != "delta":
            answer.ending.append(chunk)
            continue
        delta = chunk.delta
        match delta.WhichOneof("content"):
            case "text":
                answer.text += delta.text
            case "reasoning":
                answer.reasoning += delta.reasoning
            case "refusal":
                answer.refusal += delta.refusal
            case "reasoning_state":
                answer.states.append(delta.reasoning_state)
            case "tool_call":
                call = delta.tool_call
                if call.index == len(answer.calls):
                    answer.calls.append({"id": call.id, "name": call.name, "arguments": ""})
                answer.calls[call.index]["arguments"] += call.arguments
    return answer


def streamed(body: bytes, decoder: Decoder, sizes: Iterator[int]) -> list[pb.ChatCompletionChunk]:
    """Decode a body that arrives in pieces of these sizes, up to its end."""
    parser, chunks, at = SseParser(), [], 0
    while at < len(body):
        size = next(sizes)
        for event in parser.feed(body[at : at + size]):
            chunks += decoder.feed(event)
        at += size
    for event in parser.close():
        chunks += decoder.feed(event)
    return chunks


def slices(seed: int) -> Iterator[int]:
    """Sizes of reads: single bytes and larger ones."""
    chance = random.Random(seed)  # noqa: S311 - it hides nothing
    while True:
        yield chance.choice((1, 2, 3, 7, 64, 1500))
