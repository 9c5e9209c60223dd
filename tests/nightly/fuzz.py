"""Feeds malformed input to everything that reads what others send.

    python -m tests.nightly.fuzz [--inputs 1000000] [--seed N]

Inputs are the corpus (`tests/corpus/TARGET/`), mutated. Each target may refuse in its own way;
any other exception is a find: it is raised with the seed, and its input belongs in the corpus.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.config import EdgeConfig
from gateway.decode import decode
from gateway.errors import ApiError
from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.errors import UpstreamError
from services.providers.base import Target
from services.providers.registry import DIALECTS
from services.providers.sse import SseParser

CORPUS = Path(__file__).parents[1] / "corpus"
EDGE = EdgeConfig()
TOKENS = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n\n", b"\r\n", b"\r", b"data: ", b"event: "),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 40, b'"\\ud800"', b"[" * 200, b"\x00"),
    *(b"\xff", b"\xef\xbb\xbf", b"[DONE]", b"{}", b"[]", b'""', b"0.5", b"\xf0\x9f"),
)
HEADERS: Sequence[Mapping[str, str]] = ({}, {"retry-after": "x"}, {"retry-after": "1e999"})
STATUSES = (0, 199, 301, 400, 401, 404, 413, 429, 500, 503, 529, 599)

Read = Callable[[bytes, random.Random], None]


def read_request(data: bytes, _: random.Random) -> None:
    """A body is a request, or refused with 4xx."""
    status = 400
    try:
        decode(data, EDGE)
    except ApiError as error:
        status = error.status
    assert 400 <= status < 500


def read_stream(dialect: str) -> Read:
    """A stream and a document, of one dialect."""
    channel = ChannelConfig(name="a", dialect=dialect, base_url="http://x")
    target = Target(channel=channel, model="m", public_model="m", capabilities=Capabilities())

    def read(data: bytes, chance: random.Random) -> None:
        decoder, parser = DIALECTS[dialect].decoder(target), SseParser()
        cut = chance.randrange(len(data) + 1)
        with suppress(UpstreamError):
            for event in (*parser.feed(data[:cut]), *parser.feed(data[cut:]), *parser.close()):
                decoder.feed(event)
            decoder.finish()
        with suppress(UpstreamError):
            DIALECTS[dialect].decoder(target).whole(data.partition(b"data: ")[2] or data)

    return read


def read_refusal(data: bytes, chance: random.Random) -> None:
    """A refusal of any provider has a status of ours, and one line of ASCII."""
    for dialect in DIALECTS.values():
        error = dialect.error(chance.choice(STATUSES), chance.choice(HEADERS), data)
        assert len(error.to_status().message) <= 512


TARGETS: Mapping[str, Sequence[Read]] = {
    "intake": [read_request],
    "stream_openai": [read_stream("openai"), read_stream("openrouter")],
    "stream_anthropic": [read_stream("anthropic")],
    "errors": [read_refusal],
}
"""By the folder of the corpus."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The same, a little wrong."""
    for _ in range(chance.randint(0, 6)):
        at, size = chance.randrange(len(data) + 1), chance.randint(0, 30)
        end = min(len(data), at + size)
        middle = chance.choice(
            (b"", data[at:end] * 2, chance.choice(TOKENS), chance.randbytes(size % 4))
        )
        data = data[:at] + middle + data[chance.choice((at, end)) :]
    return data


def fuzz(inputs: int, seed: int) -> None:
    """Feeds so many inputs, spread over all targets."""
    each = inputs // len(TARGETS)
    for name, readers in TARGETS.items():
        corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
        for number in range(each):
            chance = random.Random(f"{seed}/{name}/{number}")  # noqa: S311
            data = mutated(chance.choice(corpus), chance)
            for read in readers:
                try:
                    read(data, chance)
                except Exception as error:
                    raise AssertionError(f"seed {seed}, {name}, {number}: {data!r}") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    fuzz(options.inputs, options.seed)
