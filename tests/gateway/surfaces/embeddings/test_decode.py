"""Decoder of requests for embeddings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.embeddings.decode import VALUES_MAX, decode
from services.domain.embeddings import EmbeddingRequest, EmbeddingSpec

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def test_each_field_is_decoded() -> None:
    """Unknown fields stay as JSON, `null` is absent, and `extra_body` is unpacked."""
    body = {
        "model": "m",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "dimensions": 3.0,
        "user": "u",
        "input_type": "query",
        "truncate": None,
        "extra_body": {"task": "x"},
    }

    decoded = decode(json.dumps(body).encode())

    assert decoded.encoding == "base64"
    assert decoded.request("strict") == EmbeddingRequest(
        spec=EmbeddingSpec(
            model="m",
            texts=["a", "b"],
            dimensions=3,
            user="u",
            input_type="query",
            extra_json=b'{"task":"x"}',
        ),
        parameter_policy="strict",
    )


@pytest.mark.parametrize(
    ("raw", "texts", "token_ids"),
    [
        ('"a"', ["a"], []),
        ('[ "a" ]', ["a"], []),
        ("[1,2]", [], [[1, 2]]),
        ("[ [1], [2, 3] ]", [], [[1], [2, 3]]),
        ("[]", [], []),
        ("[ ]", [], []),
        (f"[{' ' * 100}[1]]", [], [[1]]),
    ],
)
def test_the_input_has_four_forms(raw: str, texts: list[str], token_ids: list[list[int]]) -> None:
    """It is a text, texts, token IDs, or lists of them. The service refuses empty ones."""
    spec = decode(f'{{"model":"m","input":{raw}}}'.encode()).spec

    assert (spec.texts, spec.token_ids) == (texts, token_ids)


@settings(max_examples=60)
@given(JSON, st.dictionaries(st.sampled_from(["dimensions", "user", "encoding_format"]), JSON))
def test_any_json_is_a_request_or_refused(entries: Any, fields: dict[str, Any]) -> None:
    """The refusal is 4xx, and names the field."""
    body = json.dumps({"model": "m", "input": entries, **fields}).encode()
    refusal = None
    try:
        decode(body)
    except ApiError as error:
        refusal = error

    assert refusal is None or (refusal.status == 400 and refusal.param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"model":"m","input":"a","input":"b"}',
        b'{"model":"m","input":"\\ud800"}',
        b'{"model":"m","input":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"model":"m","input":[' + b"1," * VALUES_MAX + b"1]}",
        b'{"model":"m"}',
        b'{"input":"a"}',
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    """Any bytes may be sent."""
    with pytest.raises(ApiError) as refused:
        decode(body)

    assert refused.value.status == 400


def test_as_many_token_ids_as_openai_takes_are_a_request() -> None:
    """300,000 in all, which is more than the values of other bodies."""
    entries = [[7] * 8000] * 37
    body = json.dumps({"model": "m", "input": entries}).encode()

    assert decode(body).spec.token_ids == entries
