"""Fuzzers: malformed input for everything that reads bytes of others.

    python -m tests.nightly.fuzz [--inputs 1000000] [--seed N]

Inputs are the corpus (`tests/corpus/TARGET/`), mutated. Each target may refuse in its own way;
any other exception is a find: it is raised with the seed, and its input belongs in the corpus.
One that takes longer than `HANG_S` ends the process, with the stack on standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import REASONS, ApiError
from gateway.surfaces.anthropic_messages import decode as anthropic_messages
from gateway.surfaces.anthropic_messages import raw as anthropic_messages_raw
from gateway.surfaces.openai_chat import decode as openai_chat
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from gateway.surfaces.openai_responses import decode as openai_responses
from gateway.surfaces.openai_responses import raw as openai_responses_raw
from services.capabilities import Capabilities
from services.common import json_places
from services.completions.fold import Fold
from services.completions.validation import validate
from services.config import ChannelConfig
from services.domain.events import Event, RawContent
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure, UpstreamError
from services.providers.base import Notes, SseEvent, Target
from services.providers.raw_reading import check_body
from services.providers.registry import DIALECTS, RAW_LANES
from services.providers.stream_reader import Reader, StreamReader
from tests.stand.event_parser import EventParser

CORPUS = Path(__file__).parents[1] / "corpus"
EDGE = EdgeConfig()
HANG_S, WATCHED = 60, 1000
"""The inputs of a batch, which takes a second or two, so that a hang is found."""
TOKENS = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n\n", b"\r\n", b"\r", b"data: ", b"event: "),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 40, b'"\\ud800"', b"[" * 200, b"\x00"),
    *(b"\xff", b"\xef\xbb\xbf", b"[DONE]", b"{}", b"[]", b'""', b"0.5", b"\xf0\x9f"),
)


def unknown(dialect: str) -> Target:
    """A model with unknown capabilities."""
    return _target(dialect, Capabilities())


def able(dialect: str) -> Target:
    """A model with all capabilities."""
    return _target(dialect, Capabilities(thinking="budget", images="yes"))


def _target(dialect: str, capabilities: Capabilities) -> Target:
    channel = ChannelConfig(name="a", dialect=dialect, base_url="http://x")
    return Target(channel=channel, model="m", public_model="m", capabilities=capabilities)


MODELS = (unknown, able)
HEADERS: Sequence[Mapping[str, str]] = ({}, {"retry-after": "x"}, {"retry-after": "1e999"})
STATUSES = (0, 199, 301, 400, 401, 404, 413, 429, 500, 503, 529, 599)

Read = Callable[[bytes, random.Random], None]


def read_request(decode: Callable[[bytes], ChatCompletionSpec]) -> Read:
    """Check that a body is refused with 4xx or can be encoded for every dialect."""

    def read(data: bytes, chance: random.Random) -> None:
        with refused_with_4xx():
            spec = decode(data)
            validate(spec)
            target = chance.choice(MODELS)
            for name, dialect in DIALECTS.items():
                with suppress(Failure):
                    json.loads(dialect.encode(spec, target(name), Notes()).body)

    return read


def read_raw_request(dialect: str, decode: Callable[[bytes], RawRequest | None]) -> Read:
    """Check that a body is refused with 4xx or passes as it is, with another name of its model."""

    def read(data: bytes, chance: random.Random) -> None:
        target, lane = chance.choice(MODELS)(dialect), RAW_LANES[dialect]
        with refused_with_4xx():
            request = decode(data)
            assert request is not None
            check_body(request)
            facts = lane.read(request)
            if lane.takes(facts, target):
                assert json_places.members(lane.encode(facts, target, Notes()).body)

    return read


@contextmanager
def refused_with_4xx() -> Iterator[None]:
    """Check that what a request is refused with is the caller's fault."""
    status = 400
    try:
        yield
    except ApiError as error:
        status = error.status
    except Failure as failure:
        status = REASONS[failure.reason].http
    assert 400 <= status < 500, status


def read_events(data: bytes, chance: random.Random) -> None:
    """Check that a body's events are the same however it is cut."""
    cut = chance.randrange(len(data) + 1)
    assert events_of(data) == events_of(data[:cut], data[cut:])


def events_of(*pieces: bytes) -> Sequence[SseEvent]:
    """The events of a body in these pieces."""
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [*events, *parser.close()]


def read_stream(dialect: str) -> Read:
    """Check that a stream and a document of one dialect can be decoded and rendered.

    The events of a stream are the same however it is cut.
    """

    def read(data: bytes, chance: random.Random) -> None:
        events = decoded(data)
        assert events == decoded(*pieces_of(data, chance))
        show(events[0])
        document = data.partition(b"data: ")[2] or data
        with suppress(UpstreamError):
            show(DIALECTS[dialect].decoder(unknown(dialect)).whole(document).events())

    def decoded(*pieces: bytes) -> tuple[list[Event], str]:
        return read_all(StreamReader(DIALECTS[dialect].decoder(unknown(dialect))), pieces)

    return read


def read_raw_stream(dialect: str) -> Read:
    """Check that what is passed on of a stream is the same however it is cut."""

    def read(data: bytes, chance: random.Random) -> None:
        assert passed(data) == passed(*pieces_of(data, chance))
        decoder = RAW_LANES[dialect].decoder(unknown(dialect), streamed=False)
        with suppress(UpstreamError):
            decoder.whole(data.partition(b"data: ")[2] or data)
        decoder.unread()

    def passed(*pieces: bytes) -> tuple[bytes, str]:
        decoder = RAW_LANES[dialect].decoder(unknown(dialect), streamed=True)
        events, failure = read_all(decoder.reader(), pieces)
        decoder.unread()
        return b"".join(each.data for each in events if isinstance(each, RawContent)), failure

    return read


def pieces_of(data: bytes, chance: random.Random) -> Sequence[bytes]:
    """A body in some pieces, none of which is empty."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((1, 2, 5, 20))))
    return [data[begin:end] for begin, end in pairwise((0, *cuts, len(data))) if begin < end]


def read_all(reader: Reader, pieces: Sequence[bytes]) -> tuple[list[Event], str]:
    """The events of a stream in these pieces, and the failure that ended it; empty without one."""
    found: list[Event] = []
    for piece in (*pieces, b""):
        if not reader.complete:
            events, failure = reader.feed(piece)
            found += events
            if failure is not None:
                return found, str(failure)
    return found, ""


def show(batch: Sequence[Event]) -> None:
    """Check the rendering: events that are JSON on one line, or a whole answer."""
    shown = ChunkRenderer(include_usage=True).render(batch)
    for event in shown.split(b"\n\n")[:-1]:
        assert event.startswith(b"data: ")
        json.loads(event.removeprefix(b"data: "))
    fold = Fold()
    fold.add(batch)
    json.loads(render_completion(fold.answer, thinking_parts=True))


def read_refusal(data: bytes, chance: random.Random) -> None:
    """Check that any provider's refusal gets a status of ours and one line of ASCII."""
    for dialect in DIALECTS.values():
        error = dialect.error(chance.choice(STATUSES), chance.choice(HEADERS), data)
        assert len(error.to_status().message) <= 512


TARGETS: Mapping[str, Sequence[Read]] = {
    "intake": [read_request(lambda data: openai_chat.decode(data, CIMultiDict(), EDGE).spec)],
    "intake_messages": [
        read_request(lambda data: anthropic_messages.decode(data, EDGE).spec),
        read_raw_request(
            "anthropic", lambda data: anthropic_messages_raw.decode_raw(data, CIMultiDict()).raw
        ),
    ],
    "intake_responses": [
        read_request(lambda data: openai_responses.decode(data, EDGE).spec),
        read_raw_request(
            "openai-responses", lambda data: openai_responses_raw.decode_raw(data).raw
        ),
    ],
    "sse": [read_events],
    "stream_openai": [read_stream("openai"), read_stream("openrouter")],
    "stream_anthropic": [read_stream("anthropic"), read_raw_stream("anthropic")],
    "stream_responses": [read_stream("openai-responses"), read_raw_stream("openai-responses")],
    "errors": [read_refusal],
}
"""By the folder of the corpus."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The input with small random changes."""
    for _ in range(chance.randint(0, 6)):
        at, size = chance.randrange(len(data) + 1), chance.randint(0, 30)
        end = min(len(data), at + size)
        middle = chance.choice(
            (b"", data[at:end] * 2, chance.choice(TOKENS), chance.randbytes(size % 4))
        )
        data = data[:at] + middle + data[chance.choice((at, end)) :]
    return data


def fuzz(inputs: int, seed: int) -> None:
    """Runs this many inputs, spread over all targets."""
    each = inputs // len(TARGETS)
    for name, readers in TARGETS.items():
        corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
        for number in range(each):
            if number % WATCHED == 0:
                faulthandler.dump_traceback_later(HANG_S, exit=True)
            chance = random.Random(f"{seed}/{name}/{number}")  # noqa: S311
            data = mutated(chance.choice(corpus), chance)
            for read in readers:
                try:
                    read(data, chance)
                except Exception as error:
                    raise AssertionError(f"seed {seed}, {name}, {number}: {data!r}") from error
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    began = time.monotonic()
    fuzz(options.inputs, options.seed)
    took_s = time.monotonic() - began
    print(f"seed {options.seed}: {options.inputs} inputs in {took_s:.0f} s, nothing found")  # noqa: T201
