"""Contents of a prompt: its texts, and the tokens of what is no text.

`contents` has what a provider counts in any case. `rare_contents` has the rest that may travel:
sealed reasoning, names, IDs, and members that no field has. A provider counts some of it, depending
on its form of a prompt, so that only upper estimates include it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import pybase64

from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
)
from services.domain.spec import ChatCompletionSpec
from services.metering.json_budget import VALUES_MAX, JsonBudget

IMAGE_TOKENS = 2000
"""Tokens of a large image. The providers' formulas give 85 to about this number."""

FILE_TOKENS = 2000
"""Tokens of one or two pages. A file that is passed by reference has no known size."""

FILE_BYTES_PER_TOKEN = 20
AUDIO_BYTES_PER_TOKEN = 400
"""Bytes of base64 per token. A second of MP3 at 32 kbit/s is 5 kB and some 10 tokens."""

SOUND_TOKENS_PER_S = 32
"""The most tokens of a second of sound: Gemini's. OpenAI's models take 10."""

SOUND_BYTES_PER_S_MIN = 1000
"""The fewest bytes of a second of compressed sound: MP3 at its lowest rate of 8 kbit/s."""

_WAV_HEADER = struct.Struct("<4s4x4s4sIHHIIHH")
"""RIFF, its size, WAVE, "fmt ", its size; format, channels, samples per second, bytes per second,
bytes of a sample of all channels, bits of a sample of one. Rates follow from the others.
https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE
"""

_PCM = 1
_SAMPLES_PER_S_MIN = 4000
_SAMPLES_PER_S_MAX = 192_000
_CHANNELS_MAX = 8
_SAMPLE_BITS = frozenset({8, 16, 24, 32, 64})

EARLIER_SOUND_TOKENS = 8192
"""Tokens of an earlier spoken answer, which is sent by its ID: some ten minutes."""

SEALED_CHARS_PER_TOKEN = 3
"""Characters of base64 per token of the reasoning that they seal. The text itself has four
characters per token or more, and base64 has a third more of them. Providers verify seals."""

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\r\n"
"""Bytes of base64 in any alphabet."""

_DATA_URL = re.compile(
    r"data:[\w.+-]{1,64}/[\w.+-]{1,128}(;[\w.+=-]{1,64}){0,8};base64,", re.IGNORECASE
)
"""The beginning of a file by value."""

_SEALS = frozenset({"data", "signature", "thought_signature", "encrypted_content"})
"""Members that hold sealed reasoning."""

Contents = tuple[list[str], int]
"""Texts, and the tokens of the other contents."""

Json = dict[str, Any]

_IsOpaque = Callable[[Json, str, str], bool]
"""Whether a string is no text, by the object that has it, its name and the string."""


class _Texts(list[str]):
    """Texts of a prompt, and the budget of the JSON that has others."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = JsonBudget()


def contents(spec: ChatCompletionSpec) -> Contents:
    """Return what every provider counts."""
    texts = _Texts()
    media_tokens = 0
    for message in spec.messages:
        for part in message.content:
            if isinstance(part, TextPart | ReasoningPart):
                if part.text:
                    texts.append(part.text)
            else:
                media_tokens += _of_media(part, texts)
        for call in message.tool_calls:
            texts += (call.name, call.arguments)
    for tool in spec.tools:
        json = tool.parameters_json or tool.other_json
        texts += (tool.name, tool.description, json.decode(errors="replace"))
    if (form := spec.response_format) is not None:
        texts.append((form.schema_json or form.other_json).decode(errors="replace"))
    return texts, media_tokens


def rare_contents(spec: ChatCompletionSpec) -> Contents:
    """Return the rest of what may travel, some of which a provider counts."""
    texts = _Texts()
    tokens = 0
    for message in spec.messages:
        if message.reasoning_state or message.reasoning_details_json:
            tokens += _of_sealed_reasoning(message, texts)
        if message.extra_json:
            tokens += _of_message_members(message.extra_json, texts)
        texts += filter(None, (message.name, message.refusal, message.tool_call_id))
        for call in message.tool_calls:
            texts.append(call.id)
            if call.extra_content_json:
                tokens += _of_json(call.extra_content_json, texts, _is_seal, SEALED_CHARS_PER_TOKEN)
        sounds = [part for part in message.content if type(part) is AudioPart]
        tokens += sum(map(_more_of_sound, sounds))
    for json in _members(spec):
        tokens += _of_json(json, texts, _is_data_url, FILE_BYTES_PER_TOKEN)
    if (form := spec.response_format) is not None:
        texts += (form.name, form.description)
    if spec.tool_choice is not None:
        texts += spec.tool_choice.names
    return texts, tokens


def _members(spec: ChatCompletionSpec) -> Iterator[bytes]:
    """Yield the members that no field has, of all objects but messages."""
    if spec.extra_json:
        yield spec.extra_json
    for each in (*spec.tools, spec.tool_choice, spec.response_format, spec.thinking):
        if each is not None and each.extra_json:
            yield each.extra_json
    for message in spec.messages:
        for part in (*message.content, *message.tool_calls):
            if part.extra_json:
                yield part.extra_json


def _of_media(part: ImagePart | AudioPart | FilePart | OtherPart, texts: _Texts) -> int:
    """Return the tokens of a part, and add its texts."""
    match part:
        case ImagePart():
            return IMAGE_TOKENS
        case AudioPart():
            return -(-len(part.base64) // AUDIO_BYTES_PER_TOKEN)
        case FilePart():
            text = _text_of_file(part.uri)
            if text is None:
                return FILE_TOKENS + len(part.uri) // FILE_BYTES_PER_TOKEN
            texts.append(text)
            return 0
        case OtherPart():
            return FILE_TOKENS + _of_json(part.json, texts, _is_packed, FILE_BYTES_PER_TOKEN)


def _more_of_sound(part: AudioPart) -> int:
    """Return the tokens that a sound may have beyond those that `contents` has for it."""
    size = len(part.base64) * 3 // 4
    most = -(-size // _sound_bytes_per_s(part)) * SOUND_TOKENS_PER_S
    return max(0, most - len(part.base64) // AUDIO_BYTES_PER_TOKEN)


def _sound_bytes_per_s(part: AudioPart) -> int:
    """Return the bytes of a second of sound: known where it is uncompressed, else the fewest."""
    if part.format != "wav":
        return SOUND_BYTES_PER_S_MIN  # A decoder of MP3 skips any head before the first frame.
    try:
        head = pybase64.b64decode(part.base64[:48])
        riff, wave, fmt, _, kind, channels, samples, _, _, bits = _WAV_HEADER.unpack_from(head)
    except (ValueError, struct.error):
        return SOUND_BYTES_PER_S_MIN
    if (riff, wave, fmt, kind) != (b"RIFF", b"WAVE", b"fmt ", _PCM):
        return SOUND_BYTES_PER_S_MIN
    rate = samples * channels * bits // 8
    is_plausible = (
        _SAMPLES_PER_S_MIN <= samples <= _SAMPLES_PER_S_MAX
        and channels <= _CHANNELS_MAX
        and bits in _SAMPLE_BITS
    )
    return max(SOUND_BYTES_PER_S_MIN, rate) if is_plausible else SOUND_BYTES_PER_S_MIN


def _text_of_file(uri: str) -> str | None:
    """Return the text in a data URL. None: it is no data URL, or its document is no text.

    The bytes decide, since providers take a text of any type for a text.
    """
    head, comma, data = uri.partition(",")
    if not comma or head[:5].lower() != "data:":
        return None
    mime_type, *parameters = (part.strip() for part in head[5:].lower().split(";"))
    try:
        raw = pybase64.b64decode(data) if "base64" in parameters else unquote_to_bytes(data)
    except ValueError:
        return data  # Not decodable: the provider gets it as it is.
    is_pdf = mime_type == "application/pdf" and b"%PDF" in raw[:1024]
    is_packed = is_pdf or ("officedocument" in mime_type and b"\0" in raw)
    return None if is_packed else raw.decode(errors="replace")


def _of_sealed_reasoning(message: Message, texts: _Texts) -> int:
    """Return the tokens of the reasoning of an earlier turn, and add its readable texts."""
    state, sealed = message.reasoning_state, message.reasoning_details_json
    tokens = _of_json(sealed, texts, _is_seal, SEALED_CHARS_PER_TOKEN) if sealed else 0
    if state:
        try:
            # With `altchars`, pybase64 warns of a text in the other alphabet.
            standard = state.replace("-", "+").replace("_", "/")
            unpacked = pybase64.b64decode(standard + "=" * (-len(state) % 4))
        except ValueError:
            return tokens  # The request is refused later on.
        tokens += _of_json(unpacked, texts, _is_seal, SEALED_CHARS_PER_TOKEN)
    return tokens


def _of_message_members(extra_json: bytes, texts: _Texts) -> int:
    """Return the tokens of a message's other members, and add their texts."""
    tokens = 0
    if extra_json.count(b",") > VALUES_MAX:
        texts.append(extra_json.decode(errors="replace"))
        return 0
    with suppress(ValueError, RecursionError):  # Then the request is refused later on.
        members = msgspec.json.decode(extra_json, type=dict[str, msgspec.Raw])
        if members.pop("audio", None) is not None:  # Its ID is sent, and not its data.
            tokens = EARLIER_SOUND_TOKENS
            extra_json = msgspec.json.encode(members)
    return tokens + _of_json(extra_json, texts, _is_data_url, FILE_BYTES_PER_TOKEN)


def _of_json(json: bytes, texts: _Texts, is_opaque: _IsOpaque, chars_per_token: int) -> int:
    """Return the tokens of the opaque strings in JSON, and add all of the rest as a text."""
    if not texts.budget.take(json):
        texts.append(json.decode(errors="replace"))
        return 0
    try:
        value = msgspec.json.decode(json)
        opaque = sum(map(len, _without_opaque(value, is_opaque)))
        texts.append(msgspec.json.encode(value).decode())
    except (ValueError, OverflowError, RecursionError):
        texts.append(json.decode(errors="replace"))  # The request is refused later on.
        return 0
    return -(-opaque // chars_per_token)


def _without_opaque(value: object, is_opaque: _IsOpaque) -> Iterator[str]:
    """Yield the opaque strings in a value, at any depth, and empty them there."""
    values = [value]
    while values:
        each = values.pop()
        if isinstance(each, list):
            values += each
        elif isinstance(each, dict):
            for name, inner in each.items():
                if not isinstance(inner, str):
                    values.append(inner)
                elif is_opaque(each, name, inner):
                    each[name] = ""
                    yield inner


def _is_base64(text: str) -> bool:
    return text.isascii() and not text.encode().translate(None, _BASE64)


def _is_seal(_: Json, name: str, text: str) -> bool:
    return name in _SEALS and _is_base64(text)


def _is_data_url(_: Json, __: str, text: str) -> bool:
    found = _DATA_URL.match(text)
    return found is not None and text[5:10].lower() != "text/" and _is_base64(text[found.end() :])


def _is_packed(within: Json, name: str, text: str) -> bool:
    """Whether a string of a part is a file by value."""
    is_base64 = name == "data" and within.get("type") == "base64" and _is_base64(text)
    return is_base64 or _is_data_url(within, name, text)
