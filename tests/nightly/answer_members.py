"""Answers of providers with members that no field has, and what callers see of them.

    python -m tests.nightly.answer_members [--answers 100000] [--seed N]

Every member of the objects that deploy/README.md names arrives at its place, whole and streamed; a
whole answer equals the fold of a stream that says the same; and an answer in which any value has
another type is read, or is the provider's failure.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.completions.fold import Fold
from services.domain.completion import Completion
from services.domain.events import Event, Started
from services.errors import UpstreamError
from services.providers.registry import DIALECTS
from services.providers.stream_reader import StreamReader
from tests.nightly.fuzz import able
from tests.nightly.planted_answers import (
    Json,
    Path,
    PlantedAnswer,
    anthropic_answer,
    mutated,
    openai_answer,
)
from tests.nightly.planted_outputs import responses_answer

MAKERS: Mapping[str, Callable[[random.Random], PlantedAnswer]] = {
    "anthropic": anthropic_answer,
    "openai": openai_answer,
    "openai-responses": responses_answer,
    "openrouter": openai_answer,
}
"""Makers of answers by dialect."""

STARTED = Started(completion_id="c", model="m", create_time_s=0)
EMPTY_STREAM = b"data: [DONE]\n\n"


def check(dialect: str, answer: PlantedAnswer, chance: random.Random) -> None:
    """Check what a caller sees of one answer."""
    whole = folded(read_whole(dialect, answer.body))
    events = read_stream(dialect, answer.chunks, chance)
    streamed = folded(events)
    assert rendered(streamed) == rendered(whole)
    check_promised(answer, rendered(whole))
    check_promised(answer, collect(events))


def check_promised(answer: PlantedAnswer, found: Json) -> None:
    """Check that every member has arrived at its place."""
    for path, value in answer.promised:
        assert at(found, path) == value, path


def check_mutated(dialect: str, answer: PlantedAnswer, chance: random.Random) -> None:
    """Check that nothing but the provider's failure comes of an answer with an odd value."""
    with suppress(UpstreamError):
        rendered(folded(read_whole(dialect, mutated(chance, answer.body))))
    with suppress(UpstreamError):
        collect(read_stream(dialect, mutated(chance, list(answer.chunks)), chance))


def read_whole(dialect: str, body: Any) -> list[Event]:
    """Return the events of an answer in one document."""
    decoder = DIALECTS[dialect].decoder(able(dialect))
    return decoder.whole(json.dumps(body).encode()).events()


def read_stream(dialect: str, chunks: Iterable[Any], chance: random.Random) -> list[Event]:
    """Return the events of a stream, whose bytes come in two pieces."""
    data = stream_of(chunks)
    reader = StreamReader(DIALECTS[dialect].decoder(able(dialect)))
    cut = chance.randrange(1, len(data))
    events: list[Event] = []
    for piece in (data[:cut], data[cut:], b""):
        found, error = reader.feed(piece) if piece or not reader.complete else ([], None)
        events += found
        if error is not None:
            raise error
        if reader.complete:
            break
    return events


def stream_of(chunks: Iterable[Any]) -> bytes:
    """Return the bytes of a stream."""
    return b"".join(map(_event, chunks)) + EMPTY_STREAM


def _event(chunk: Any) -> bytes:
    name = chunk.get("type") if isinstance(chunk, dict) else None
    head = f"event: {name}\n" if isinstance(name, str) and "\n" not in name else ""
    return f"{head}data: {json.dumps(chunk)}\n\n".encode()


def folded(events: Sequence[Event]) -> Completion:
    """Return the whole answer that events make."""
    fold = Fold()
    fold.add([STARTED, *events])
    return fold.answer


def rendered(completion: Completion) -> Json:
    """Return the body that a REST caller gets."""
    body: Json = json.loads(render_completion(completion, thinking_parts=False))
    return body


def collect(events: Sequence[Event]) -> Json:
    """Return what a REST caller collects of a stream of these events."""
    return collected(ChunkRenderer(include_usage=True).render([STARTED, *events]))


def collected(shown: bytes) -> Json:
    """Return what a caller collects of chunks: members of chunks, deltas and tool calls."""
    answer: Json = {}
    choices: dict[int, Json] = {}
    for block in shown.split(b"\n\n")[:-1]:
        if block == b"data: [DONE]":
            break
        chunk = json.loads(block.removeprefix(b"data: "))
        for choice in chunk.pop("choices"):
            found = choices.setdefault(choice["index"], {"message": {}})
            _add_delta(found["message"], choice.pop("delta"))
            found |= {name: each for name, each in choice.items() if each is not None}
        answer |= {name: each for name, each in chunk.items() if each is not None}
    return answer | {"choices": [choices[index] for index in sorted(choices)]}


def _add_delta(message: Json, delta: Json) -> None:
    for piece in delta.pop("tool_calls", ()):
        calls: list[Json] = message.setdefault("tool_calls", [])
        calls += [{"function": {}} for _ in range(len(calls), piece["index"] + 1)]
        call = calls[piece["index"]]
        call["function"] |= piece.pop("function", {})
        call |= piece
    message |= delta


def at(body: Any, path: Path) -> Any:
    """Return the value at a path; None where nothing stands."""
    for step in path:
        if isinstance(body, dict):
            body = body.get(step)
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            body = body[step]
        else:
            return None
    return body


def run(answers: int, seed: int) -> None:
    """Check this many answers, spread over all dialects."""
    for dialect, make in MAKERS.items():
        for number in range(answers // len(MAKERS)):
            chance = random.Random(f"{seed}/{dialect}/{number}")  # noqa: S311 - no secret
            answer = make(chance)
            try:
                check(dialect, answer, chance)
                check_mutated(dialect, answer, chance)
            except Exception as error:
                raise AssertionError(f"seed {seed}, {dialect}, {number}: {answer}") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    began = time.monotonic()
    run(options.answers, options.seed)
    took_s = time.monotonic() - began
    print(f"seed {options.seed}: {options.answers} answers in {took_s:.0f} s, nothing lost")  # noqa: T201
