"""Upper estimates of prompts: all that a caller can have sent to a provider counts."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.domain.conversation import (
    AudioPart,
    FilePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool
from services.errors import Failure
from services.metering.tokens import TokenCounter, count_prompt, estimate_prompt
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from services.providers.translate.reasoning_state import Details, Redacted, Thought, pack
from tests.services.providers.targets import target_of

TEXT = "nothing of it is left uncounted " * 300
TOKENS = len(TEXT) // 4
"""Tokens that a provider would bill for the text."""

Planted = Callable[[str], Mapping[str, Any]]
"""Fields of a spec that has the text at one place."""

CALL = ToolCall(id="c", name="f", arguments="{}")
SCHEMA = ResponseFormat(type="json_schema", name="a", schema_json=b'{"type":"object"}')
USER = Message(role="user", content=[TextPart(text="a")])


def as_json(value: object) -> bytes:
    """The value as JSON."""
    return json.dumps(value).encode()


def assistant(**fields: Any) -> Mapping[str, Any]:
    """A conversation whose second message has these fields."""
    said = Message(**{"role": "assistant", "content": [TextPart(text="a")], **fields})
    return {"messages": [USER, said, USER]}


def called(**fields: Any) -> Mapping[str, Any]:
    """A conversation with a tool call that has these fields."""
    call = msgspec.structs.replace(CALL, **fields)
    result = Message(role="tool", tool_call_id=call.id, content=[TextPart(text="r")])
    said = Message(role="assistant", tool_calls=[call])
    return {"messages": [USER, said, result], "tools": [Tool(name="f")]}


def part(value: object) -> Mapping[str, Any]:
    """A conversation of one part of another type."""
    return {"messages": [Message(role="user", content=[OtherPart(json=as_json(value))])]}


def file(uri: str) -> Mapping[str, Any]:
    """A conversation of one file."""
    return {"messages": [Message(role="user", content=[FilePart(uri=uri, filename="a.txt")])]}


def base64_of(text: str) -> str:
    """The text as base64."""
    return base64.b64encode(text.encode()).decode()


def details(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """A conversation with an item of OpenRouter's form, as its clients send it back."""
    return assistant(reasoning_details_json=as_json([item]))


def state(dialect: str, block: Any) -> Mapping[str, Any]:
    """A conversation with sealed reasoning."""
    return assistant(reasoning_state=pack(dialect, [block]))


PLACES: Mapping[str, Planted] = {
    "text": lambda text: {"messages": [Message(role="user", content=[TextPart(text=text)])]},
    "name": lambda text: {"messages": [msgspec.structs.replace(USER, name=text)]},
    "reasoning": lambda text: assistant(content=[ReasoningPart(text=text), TextPart(text="a")]),
    "refusal": lambda text: assistant(refusal=text),
    "function_call": lambda text: assistant(
        extra_json=as_json({"function_call": {"name": "f", "arguments": text}})
    ),
    "annotations": lambda text: assistant(extra_json=as_json({"annotations": [{"text": text}]})),
    "details' text": lambda text: details({"type": "reasoning.text", "text": text}),
    "details' summary": lambda text: details({"type": "reasoning.summary", "summary": text}),
    "details' data": lambda text: details({"type": "reasoning.encrypted", "data": text}),
    "signed details": lambda text: details(
        {"type": "reasoning.text", "text": text, "signature": "s", "format": "anthropic-claude-v1"}
    ),
    "Claude's state": lambda text: state("anthropic", Thought(text=text, signature="s")),
    "Claude's redacted state": lambda text: state("anthropic", Redacted(data=text)),
    "OpenRouter's state": lambda text: state(
        "openrouter", Details(json=msgspec.Raw(as_json([{"type": "x", "text": text}])))
    ),
    "call's ID": lambda text: called(id=text),
    "call's arguments": lambda text: called(arguments=json.dumps({"a": text})),
    "call's content": lambda text: called(
        extra_content_json=as_json({"google": {"thought_signature": text}})
    ),
    "call's members": lambda text: called(extra_json=as_json({"function": {"x": text}})),
    "tool": lambda text: {"tools": [Tool(name="f", description=text)]},
    "tool's members": lambda text: {"tools": [Tool(name="f", extra_json=as_json({"x": text}))]},
    "other tool": lambda text: {
        "tools": [Tool(name="", other_json=as_json({"type": "x_20250101", "text": text}))]
    },
    "schema": lambda text: {
        "response_format": msgspec.structs.replace(
            SCHEMA, schema_json=as_json({"type": "object", "description": text})
        )
    },
    "schema's description": lambda text: {
        "response_format": msgspec.structs.replace(SCHEMA, description=text)
    },
    "format's members": lambda text: {
        "response_format": ResponseFormat(
            type="json_object", extra_json=as_json({"schema": {"description": text}})
        )
    },
    "other format": lambda text: {
        "response_format": ResponseFormat(
            type="", other_json=as_json({"type": "grammar", "grammar": text})
        )
    },
    "thinking's members": lambda text: {
        "thinking": Thinking(budget_tokens=2000, extra_json=as_json({"x": text}))
    },
    "unknown fields": lambda text: {"extra_json": as_json({"json_schema": {"description": text}})},
    "template's variables": lambda text: {
        "extra_json": as_json({"chat_template_kwargs": {"thinking_mode": text}})
    },
    "part's members": lambda text: {
        "messages": [
            Message(role="user", content=[TextPart(text="a", extra_json=as_json({"x": text}))])
        ]
    },
    "document": lambda text: part({"type": "document", "source": {"type": "text", "data": text}}),
    "search result": lambda text: part(
        {"type": "search_result", "source": "s", "title": "t",
         "content": [{"type": "text", "text": text}]}
    ),
    "unknown part": lambda text: part({"type": "x", "x": [{"y": text}]}),
    "text file": lambda text: file(f"data:text/plain;base64,{base64_of(text)}"),
    "JSON file": lambda text: file(f"data:application/json;base64,{base64_of(json.dumps(text))}"),
    "plain file": lambda text: file(f"DATA:,{text}"),
}  # fmt: skip


def sent(dialect: str, spec: ChatCompletionSpec, pass_through: Any) -> bool:
    """Whether the text travels."""
    target = target_of({"anthropic": "claude-sonnet-4-5"}.get(dialect, "m"), dialect)
    channel = msgspec.structs.replace(target.channel, pass_through=pass_through)
    try:
        request = DIALECTS[dialect].encode(spec, replace(target, channel=channel), Notes())
    except Failure:
        return False
    body = request.body.decode()
    return TEXT[:-1] in body or base64_of(TEXT)[:-8] in body


@pytest.mark.parametrize("place", PLACES)
def test_all_that_travels_counts(place: str) -> None:
    """At each place of a request, in each dialect, also where a channel passes everything."""
    plain, planted = (
        ChatCompletionSpec(**{"model": "m", "messages": [USER], **PLACES[place](text)})
        for text in ("x", TEXT)
    )
    travels = [
        sent(dialect, planted, allowed)
        for dialect in sorted(DIALECTS)
        for allowed in ("harmless", True)
    ]

    assert any(travels)
    assert estimate_prompt(planted) - estimate_prompt(plain) >= TOKENS


@pytest.mark.parametrize(
    "item",
    [
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 20_000}},
        {"type": "document", "source": {"type": "base64", "data": "A" * 20_000}},
    ],
)
def test_files_by_value_count_by_their_size(item: Mapping[str, Any]) -> None:
    """Their base64 is no text."""
    spec = ChatCompletionSpec(model="m", **part(item))

    assert 3_000 <= estimate_prompt(spec) < 3_200


def test_sound_that_comes_back_counts_by_its_id() -> None:
    """Its data is not sent."""
    audio = {"id": "audio_1", "data": "A" * 1_000_000, "transcript": "Hello"}
    spec = ChatCompletionSpec(model="m", **assistant(extra_json=as_json({"audio": audio})))

    assert 8_192 <= estimate_prompt(spec) < 8_300


def test_seals_count_less_than_texts() -> None:
    """A signature stands for a text that is shorter than itself."""
    sealed = ChatCompletionSpec(
        model="m", **state("anthropic", Thought(text="", signature="A" * 30_000))
    )

    assert 10_000 <= estimate_prompt(sealed) < 10_200


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000, b'"\\ud800"', b"1" * 400])
def test_what_is_no_json_counts_as_text(data: bytes) -> None:
    """The request is refused where it is encoded, and not here."""
    message = Message(
        role="assistant", reasoning_details_json=data, extra_json=data, reasoning_state="é"
    )
    spec = ChatCompletionSpec(model="m", messages=[message], extra_json=data)

    assert estimate_prompt(spec) >= 3


def test_sealed_reasoning_in_the_other_alphabet_of_base64_counts_the_same() -> None:
    """Callers may send either: no text of theirs makes a library warn."""
    packed = pack("anthropic", [Thought(text="?>" * 99, signature="c2ln")])
    other = packed.replace("-", "+").replace("_", "/")

    assert other != packed
    assert estimate_prompt(seals(other)) == estimate_prompt(seals(packed))


def seals(reasoning_state: str) -> ChatCompletionSpec:
    """A request with this sealed reasoning."""
    return ChatCompletionSpec(model="m", **assistant(reasoning_state=reasoning_state))


def test_json_of_many_values_counts_as_text() -> None:
    """It is not looked into, which would take too long: a seal in it counts as text, too."""
    many = as_json([{"type": "reasoning.encrypted", "data": "A" * 3_000}, *range(30_000)])
    few = as_json([{"type": "reasoning.encrypted", "data": "A" * 3_000}])

    estimates = [
        estimate_prompt(
            ChatCompletionSpec(model="m", **assistant(reasoning_details_json=details_json))
        )
        for details_json in (many, few)
    ]
    assert estimates[0] > 3_000 + len(many) // 2
    assert estimates[1] < 1_200


def test_rare_contents_are_held_and_not_charged() -> None:
    """Where a provider reports no usage, only what every provider counts is charged."""
    spec = ChatCompletionSpec(model="m", **state("anthropic", Thought(text=TEXT, signature="s")))

    assert count_prompt(spec, TokenCounter()) < 50


def wav(seconds: int, samples_per_s: int = 24_000, kind: int = 1, width: int = 2) -> AudioPart:
    """A sound of this length in the header's terms."""
    rate = samples_per_s * width
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0, b"WAVE", b"fmt ", 16, kind, 1, samples_per_s,
                       2**32 - 1, 2**16 - 1, 8 * width)  # fmt: skip
    return AudioPart(base64=base64.b64encode(head + bytes(seconds * rate)).decode(), format="wav")


def mp3(size: int) -> AudioPart:
    """Compressed sound of this size."""
    return AudioPart(base64=base64.b64encode(b"\xff\xe3" + bytes(size)).decode(), format="mp3")


@pytest.mark.parametrize(
    ("sound", "seconds"),
    [
        (wav(30), 30),
        (wav(30, samples_per_s=8_000, width=1), 30),
        (wav(60, samples_per_s=500), 60),  # Held as compressed: no sound has so few samples.
        (wav(1, kind=0x31), 48),  # GSM in a WAV file.
        (msgspec.structs.replace(wav(10), format="mp3"), 480),  # Its frames may follow the head.
        (mp3(480_000), 480),
    ],
)
def test_a_sound_is_held_for_its_longest_time(sound: AudioPart, seconds: int) -> None:
    """By its rate where it is uncompressed, whatever else its header says; else by the lowest."""
    spec = ChatCompletionSpec(model="m", messages=[Message(role="user", content=[sound])])

    estimate = estimate_prompt(spec)
    assert estimate >= seconds * 32
    assert estimate <= max((seconds + 2) * 32, len(sound.base64) // 400) + 20
    assert count_prompt(spec, TokenCounter()) == -(-len(sound.base64) // 400) + 4
