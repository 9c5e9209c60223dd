from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.domain.events import Event, TextDelta
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Decoder, SseEvent, Target
from services.providers.openai.response import OpenAiDecoder
from services.providers.registry import DIALECTS
from services.providers.stream_reader import ATTEMPTS, StreamReader
from tests.stand.event_parser import EventParser

TEXTS = ["Good", " ", "day", '"', "\n", "", "ж", "\\", "Good"]


def decoder(dialect: str, *, details: bool = False) -> Decoder:
    """That of a dialect."""
    channel = ChannelConfig(name="a", dialect=dialect, base_url="http://x")
    return DIALECTS[dialect].decoder(
        Target(channel=channel, model="m", public_model="m", capabilities=Capabilities()),
        details=details,
    )


def event_by_event(dialect: str, data: bytes, *, details: bool = False) -> list[Event]:
    """The events, where no frame is read together with others."""
    one = decoder(dialect, details=details)
    events = [event for frame in EventParser().feed(data) for event in one.feed(frame)]
    return events + one.finish()


def openai(lines: Iterable[bytes]) -> bytes:
    """Events as OpenAI's providers send them."""
    return b"".join(b"data: %b\n\n" % line for line in (*lines, b"[DONE]"))


def pieces(*, pad: bool = False, index: bool = False) -> list[bytes]:
    """Deltas of `TEXTS`, padded to vary, or of two choices in turn; then the end."""
    found = []
    for number, text in enumerate(TEXTS):
        extra = f',"obfuscation":"{"x" * number}"' if pad else ""
        choice = number % 2 if index else 0
        delta = f'{{"index":{choice},"delta":{{"content":{escaped(text)}}}}}'
        found.append(f'{{"id":"1","choices":[{delta}]{extra}}}'.encode())
    stops = range(2 if index else 1)
    found += [
        b'{"id":"1","choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}' % stop
        for stop in stops
    ]
    return found


def escaped(text: str) -> str:
    """The text as JSON, with everything escaped that may be."""
    return '"' + "".join(f"\\u{ord(char):04x}" if char in '"\\\n' else char for char in text) + '"'


def anthropic(*, stray: bool = False) -> bytes:
    """A message of two blocks of text; `stray`: each goes on after its end."""
    events: list[tuple[str, str]] = [("message_start", '"message":{"id":"1"}')]
    for index in (0, 1):
        events.append(
            ("content_block_start", f'"index":{index},"content_block":{{"type":"text","text":""}}')
        )
        events += [
            (
                "content_block_delta",
                f'"index":{index},"delta":{{"type":"text_delta","text":{escaped(text)}}}',
            )
            for text in TEXTS
        ]
        events.append(("content_block_stop", f'"index":{index}'))
        if stray:
            delta = '"delta":{"type":"text_delta","text":"no"}'
            events.append(("content_block_delta", f'"index":{index},{delta}'))
    events.append(("message_delta", '"delta":{"stop_reason":"end_turn"}'))
    events.append(("message_stop", '"x":1'))
    return "".join(
        f'event: {name}\ndata: {{"type":"{name}",{rest}}}\n\n' for name, rest in events
    ).encode()


@pytest.mark.parametrize("size", [1, 7, 100, 100_000, None], ids=lambda size: size or "event")
@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        ("openai", openai(pieces())),
        ("openai", openai(pieces(pad=True))),
        ("openai", openai(pieces(index=True))),
        ("openrouter", b": waiting\n\n" + openai(pieces())),
        ("anthropic", anthropic()),
        ("anthropic", anthropic(stray=True)),
    ],
)
def test_reads_what_is_alike_as_it_reads_the_rest(
    dialect: str, data: bytes, size: int | None
) -> None:
    """However a stream is cut, its events are those of its frames one by one."""
    reader = StreamReader(decoder(dialect))
    events: list[Event] = []
    if size is None:
        cut = [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]
    else:
        cut = [data[begin : begin + size] for begin in range(0, len(data), size)]

    for piece in cut:
        found, failure = reader.feed(piece)
        assert failure is None
        events += found

    assert reader.complete
    assert events == event_by_event(dialect, data)
    assert [event.text for event in events if isinstance(event, TextDelta)][:3] == TEXTS[:3]


def reasoned(member: str) -> bytes:
    """Reasoning in a member of deltas, then text, then reasoning and text in turn."""
    deltas = [
        *((member, text) for text in TEXTS),
        *(("content", text) for text in TEXTS),
        *((name, text) for text in TEXTS for name in (member, "content")),
    ]
    lines = [
        f'{{"choices":[{{"index":0,"delta":{{"{name}":{escaped(text)}}}}}]}}'.encode()
        for name, text in deltas
    ]
    return openai([*lines, b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'])


def reasoned_twice() -> bytes:
    """Reasoning in two members, of which the other one counts where the first one is empty."""
    lines = [
        f'{{"choices":[{{"delta":{{"reasoning":"b","reasoning_content":{escaped(text)}}}}}]}}'.encode()
        for text in TEXTS
    ]
    return openai([*lines, b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'])


def tool_calls() -> bytes:
    """Two calls one after the other, with arguments in pieces."""
    lines = []
    for index in range(2):
        name = f'"id":"call_{index}","type":"function","function":{{"name":"f","arguments":""}}'
        fragments = [
            name,
            *(f'"function":{{"arguments":{escaped(text)}}}' for text in TEXTS),
        ]
        lines += [
            f'{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":{index},{one}}}]}}}}]}}'
            for one in fragments
        ]
    lines.append('{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}')
    return openai(line.encode() for line in lines)


def odd_call(*arguments: str, begun: str = '"index":0,') -> bytes:
    """A call that begins with or without an index, and goes on at index 0."""
    fragments = [
        f'{begun}"id":"a","function":{{"name":"f","arguments":""}}',
        *(f'"index":0,"function":{{"arguments":{escaped(text)}}}' for text in arguments),
    ]
    lines = [
        f'{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{{one}}}]}}}}]}}' for one in fragments
    ]
    lines.append('{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}')
    return openai(line.encode() for line in lines)


def agent_turns() -> bytes:
    """A message with more blocks than frames are tried: reasoning, text and a tool call in turn."""
    kinds = {
        "thinking": '"thinking":""',
        "text": '"text":""',
        "tool_use": '"id":"t","name":"f","input":{}',
    }
    deltas = {
        "thinking": ("thinking_delta", "thinking"),
        "text": ("text_delta", "text"),
        "tool_use": ("input_json_delta", "partial_json"),
    }
    events = [("message_start", '"message":{"id":"1"}')]
    for index in range(4 * ATTEMPTS):
        kind = list(kinds)[index % 3]
        block = f'"index":{index},"content_block":{{"type":"{kind}",{kinds[kind]}}}'
        events.append(("content_block_start", block))
        name, member = deltas[kind]
        events += [
            (
                "content_block_delta",
                f'"index":{index},"delta":{{"type":"{name}","{member}":{escaped(text)}}}',
            )
            for text in TEXTS
        ]
        events.append(("content_block_stop", f'"index":{index}'))
    events.append(("message_delta", '"delta":{"stop_reason":"end_turn"}'))
    events.append(("message_stop", '"x":1'))
    return "".join(
        f'event: {name}\ndata: {{"type":"{name}",{rest}}}\n\n' for name, rest in events
    ).encode()


FRAGMENTS = (
    *('{"id":"a","function":{"name":"f","arguments":""}}', '{"function":{"name":"g"}}'),
    *(
        f'{{"function":{{"arguments":{escaped(text)}}}}}'
        for text in ("", "x", "{", "}", "{}", '{"a":1}', " {", '"')
    ),
    *('{"id":"","type":"function","function":{"name":"","arguments":"y"}}', '{"x":1}'),
    *('{"function":{"arguments":"z"},"x":1}', '{"custom":{"input":"c"}}'),
)
DELTAS = st.one_of(
    st.tuples(st.sampled_from(["", '"index":0,', '"index":1,']), st.sampled_from(FRAGMENTS)).map(
        lambda found: f'{{"tool_calls":[{found[1][:1]}{found[0]}{found[1][1:]}]}}'
    ),
    st.sampled_from(
        [
            *('{"content":"a"}', '{"content":""}', '{"content":"b","reasoning":"c"}'),
            *('{"reasoning":"a"}', '{"reasoning_content":"d","content":null}', '{"refusal":"e"}'),
            *('{"reasoning":"a","reasoning_content":"a"}', '{"reasoning":"f","x":"g"}', "{}"),
        ]
    ),
)


@given(
    deltas=st.lists(st.tuples(DELTAS, st.integers(1, 4)), max_size=12),
    ends=st.lists(st.integers(0, 40), max_size=2),
    size=st.integers(1, 400),
    details=st.booleans(),
)
def test_pieces_of_tool_calls_in_any_order_are_read_as_one_by_one(
    deltas: list[tuple[str, int]], ends: list[int], size: int, details: bool
) -> None:
    """Calls begin, go on and repeat, also after a finish reason, and each delta several times."""
    lines = [
        f'{{"choices":[{{"index":0,"delta":{delta}}}]}}'.encode()
        for delta, times in deltas
        for _ in range(times)
    ]
    end = b'{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}'
    for place in ends:
        lines.insert(place, end)
    data = openai([*lines, end])
    reader = StreamReader(decoder("openrouter", details=details))
    events: list[Event] = []
    for begin in range(0, len(data), size):
        found, failure = reader.feed(data[begin : begin + size])
        assert failure is None
        events += found

    assert events == event_by_event("openrouter", data, details=details)


@pytest.mark.parametrize("details", [True, False])
@pytest.mark.parametrize("size", [7, 100, 100_000])
@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        ("openai", reasoned("reasoning_content")),
        ("openai", reasoned_twice()),
        ("openai", tool_calls()),
        pytest.param("openai", odd_call("{", "}", "{}", "{}"), id="arguments once more"),
        pytest.param("openai", odd_call("{", '"a"', ":1", "}", "x", begun=""), id="no index"),
        ("openrouter", reasoned("reasoning")),
        ("anthropic", agent_turns()),
    ],
)
def test_reads_reasoning_and_arguments_that_are_alike_as_it_reads_the_rest(
    dialect: str, data: bytes, size: int, details: bool
) -> None:
    """However a stream is cut, with the reasoning in OpenRouter's form or without."""
    reader = StreamReader(decoder(dialect, details=details))
    events: list[Event] = []
    for begin in range(0, len(data), size):
        found, failure = reader.feed(data[begin : begin + size])
        assert failure is None
        events += found

    assert events == event_by_event(dialect, data, details=details)


class CountedOpenAi(OpenAiDecoder):
    """A decoder that counts the events that it decodes."""

    fed = 0

    def feed(self, event: SseEvent) -> list[Event]:
        """Count and decode an event."""
        self.fed += 1
        return super().feed(event)


class CountedAnthropic(AnthropicDecoder):
    """See `CountedOpenAi`."""

    fed = 0

    def feed(self, event: SseEvent) -> list[Event]:
        """Count and decode an event."""
        self.fed += 1
        return super().feed(event)


@pytest.mark.parametrize("text", ["\\", '"', '\\"', '","', "\n"])
def test_a_burst_is_read_by_its_frame_whatever_its_texts_end_with(text: str) -> None:
    """The event before it is decoded, and the end; none of the burst is."""
    counted = CountedOpenAi()
    lines = [
        f'{{"choices":[{{"index":0,"delta":{{"content":{json.dumps(each)}}}}}]}}'.encode()
        for each in ["a"] * 100 + [text] * 100 + ["b"]
    ]
    events, failure = StreamReader(counted).feed(openai(lines))

    assert failure is None
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert texts == ["a"] * 100 + [text] * 100 + ["b"]
    assert counted.fed == 2


@pytest.mark.parametrize(
    ("counted", "data", "fed"),
    [
        (CountedOpenAi(), openai(pieces()), 3),
        (CountedOpenAi(), openai(pieces(pad=True)), 3),
        (CountedOpenAi(), tool_calls(), 2 * 3 + 2),
        (CountedAnthropic(), agent_turns(), 3 + 3 * 4 * ATTEMPTS),
    ],
)
def test_decodes_the_first_event_of_those_that_are_alike(
    counted: CountedOpenAi | CountedAnthropic, data: bytes, fed: int
) -> None:
    """Of each block its start, its first delta and its end, also of a message with many blocks."""
    reader = StreamReader(counted)

    for event in data.split(b"\n\n")[:-1]:
        reader.feed(event + b"\n\n")

    assert reader.complete
    assert counted.fed == fed


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\r\r"])
def test_an_event_of_the_frame_with_other_line_ends_is_read(end: bytes) -> None:
    """A line end that is cut in the middle does not hide the event behind it."""
    reader = StreamReader(decoder("openai"))
    event = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}]}'
    lines = b"".join(event % word + b"\n\n" for word in (b"a", b"b", b"c"))
    reader.feed(lines)

    cut = event % b"d" + end
    found = [reader.feed(piece)[0] for piece in (cut[:-1], cut[-1:] + event % b"e" + b"\n\n")]

    assert [one.text for events in found for one in events if isinstance(one, TextDelta)] == [
        "d",
        "e",
    ]
