from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_chat.chat_request import ChatRequest
from gateway.surfaces.openai_chat.decode import decode, read_simple
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from services.domain.plain_texts import plain_texts

CONFIG = EdgeConfig()
USER: dict[str, object] = {"role": "user", "content": 'Hi: {"a": [1]}'}
SMALL: dict[str, object] = {"model": "m", "messages": [USER]}

_texts = st.text(max_size=8) | st.sampled_from(['":', '\\":"', "\\", "{:}", "é", "\U0001f600", ""])
_anything = st.none() | st.booleans() | st.integers() | st.floats() | _texts
_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": _texts}
)
_odd_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "function", "robot"])},
    optional={"content": _anything | st.lists(_anything, max_size=1), "name": _anything},
)
_usual = st.fixed_dictionaries(
    {"model": _texts, "messages": st.lists(_messages, max_size=3)},
    optional={
        "stream": st.booleans(),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
        "max_tokens": st.sampled_from([0, 1, 2, -1]),
        "max_completion_tokens": st.sampled_from([1, 2]),
        "temperature": st.floats(0, 2) | st.integers(0, 2),
        "top_p": st.floats(0, 1),
    },
)
_odd = st.fixed_dictionaries(
    {"model": _texts, "messages": st.lists(_odd_messages, max_size=2)},
    optional=dict.fromkeys(
        ["stream", "stream_options", "max_tokens", "temperature", "top_p", "user", "n", "x"],
        _anything | st.dictionaries(_texts, _anything, max_size=2),
    ),
)


def outcome(read: object, body: bytes) -> object:
    """Return the decoded request, or the error's status, code, parameter and message.

    Only the way of simple requests tells the texts of a plain one, which are as the core reads it.
    """
    assert callable(read)
    try:
        request: ChatRequest = read(body, CONFIG)
    except ApiError as error:
        return error.status, error.code, error.param, error.message
    assert request.texts is None or request.texts == plain_texts(request.spec)
    return msgspec.structs.replace(request, texts=None)


def decode_quickly(body: bytes, config: EdgeConfig) -> ChatRequest:
    """Decode a request as the API does."""
    return decode(body, CIMultiDict(), config)


@given(_usual, st.booleans(), st.sampled_from([None, 2]))
def test_usual_requests_are_decoded_alike_on_both_ways(
    fields: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    """White space and escapes may be anywhere in their JSON."""
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode()
    assert outcome(decode_quickly, body) == outcome(decode_fields, body)


@given(_odd)
def test_odd_requests_are_decoded_alike_on_both_ways(fields: dict[str, object]) -> None:
    """Their errors are equal."""
    body = json.dumps(fields).encode()
    assert outcome(decode_quickly, body) == outcome(decode_fields, body)


@given(_usual, st.binary(min_size=1, max_size=3), st.integers(0, 200))
def test_broken_requests_are_decoded_alike_on_both_ways(
    fields: dict[str, object], inserted: bytes, at: int
) -> None:
    """Any bytes are inserted."""
    body = json.dumps(fields).encode()
    body = body[:at] + inserted + body[at:]
    assert outcome(decode_quickly, body) == outcome(decode_fields, body)


@pytest.mark.parametrize(
    "fields",
    [
        SMALL,
        SMALL | {"messages": [USER] * 30},
        SMALL | {"stream": True, "stream_options": {"include_usage": True}},
        SMALL | {"stream": False, "max_tokens": 5, "max_completion_tokens": 5},
        SMALL | {"temperature": 1, "top_p": 0.5},
    ],
)
def test_usual_requests_are_simple(fields: dict[str, object]) -> None:
    """Most clients send such requests."""
    request = read_simple(json.dumps(fields).encode())
    assert request is not None
    assert request.texts == plain_texts(request.spec)
    assert request.texts is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","model":"m","messages":[]}',
        b'{"model":"m","mod\\u0065l":"m","messages":[]}',
        b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}',
        b'{"model":"m","messages":[],"stream":true,"stream":true}',
        (
            b'{"model":"m","messages":[],"stream":true,'
            b'"stream_options":{"include_usage":true,"include_usage":false}}'
        ),
        b'{"model":"\\\\\\":","model":"m","messages":[]}',
    ],
)
def test_duplicate_keys_are_refused(body: bytes) -> None:
    """They may be at any level, and one of them may be escaped."""
    assert read_simple(body) is None
    with pytest.raises(ApiError) as refused:
        decode_quickly(body, CONFIG)
    assert refused.value.code == "duplicate_key"


@pytest.mark.parametrize(
    "fields",
    [
        SMALL | {"user": "u"},
        SMALL | {"stream": None},
        SMALL | {"max_tokens": 1.0},
        SMALL | {"max_tokens": 2**31},
        SMALL | {"max_tokens": 1, "max_completion_tokens": 2},
        SMALL | {"stream_options": {"include_usage": True}},
        SMALL | {"messages": [USER | {"role": "tool"}]},
        SMALL | {"messages": [USER | {"content": [{"type": "text", "text": "a"}]}]},
        SMALL | {"messages": [USER | {"name": "n"}]},
    ],
)
def test_other_requests_are_not_simple(fields: dict[str, object]) -> None:
    """They are decoded field by field."""
    assert read_simple(json.dumps(fields).encode()) is None
