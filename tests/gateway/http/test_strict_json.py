from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.http.strict_json import (
    DEPTH_MAX,
    LARGE_BYTES,
    parse,
    refuse_too_many_values,
)
from services.common.json_values import VALUES_MAX, outside_strings

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=30,
)


def nested(depth: int) -> bytes:
    """Build an object of `depth` levels, with strings that look like levels."""
    inner = b'["[[[{{{\\"[[["]' if depth > 1 else b"1"
    for level in range(depth - 2):
        inner = b'{"a":%b}' % inner if level % 2 else b"[%b,[]]" % inner
    return b'{"a":%b}' % inner


@given(st.dictionaries(st.text(), JSON))
def test_every_object_is_read(value: dict[str, object]) -> None:
    """The result has each member but those that are `null`."""
    members = parse(json.dumps(value).encode())
    read = {name: json.loads(bytes(raw)) for name, raw in members.items()}
    assert read == {name: member for name, member in value.items() if member is not None}


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    """The refusal is 400. No other error is raised."""
    try:
        parse(body)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - it need not be raised


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":1}x', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":Infinity}', "invalid_json"),
        (b'{"a":01}', "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":"\x01"}', "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b'{"a":"\xff"}', "invalid_encoding"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_encoding"),
        (b'{"a":"\xc0\xaf"}', "invalid_encoding"),
        (b'{"a":"\\ud800"}', "invalid_encoding"),
        (b'{"a":"\\udc00 "}', "invalid_encoding"),
        (b'{"a":["\\ud800\\u0041"]}', "invalid_encoding"),
        ('{"a":1}'.encode("utf-16"), "invalid_encoding"),
        ('{"a":1}'.encode("utf-16-le"), "invalid_encoding"),
        ('{"a":1}'.encode("utf-32-be"), "invalid_encoding"),
        (b'{"a":1,"a":2}', "duplicate_key"),
        (b'{"a":1,"\\u0061":2}', "duplicate_key"),
        (b'{"b":[{"a":null,"a":null}]}', "duplicate_key"),
        (nested(DEPTH_MAX + 1), "json_too_deep"),
        (nested(500), "json_too_deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_too_deep"),
    ],
)
def test_ambiguous_json_is_refused(body: bytes, code: str) -> None:
    """Each kind has its own code."""
    with pytest.raises(ApiError) as refused:
        parse(body)
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize("depth", [1, 34, DEPTH_MAX])
def test_nesting_within_the_limit_is_read(depth: int) -> None:
    """The limit itself is allowed."""
    assert parse(nested(depth)).keys() == {"a"}


def test_brackets_beside_each_other_are_not_nested() -> None:
    """Thousands of them are read."""
    assert parse(json.dumps({"a": [[]] * 5000}).encode())


def test_a_byte_order_mark_is_skipped() -> None:
    """Some editors write one."""
    assert parse(b'\xef\xbb\xbf{"a":1}').keys() == {"a"}


def test_numbers_keep_all_digits() -> None:
    """Numbers are passed on as text."""
    digits = "9" * 5000
    assert bytes(parse(f'{{"a":{digits},"b":1.10}}'.encode())["a"]) == digits.encode()


def test_a_message_never_quotes_the_body() -> None:
    """It has a position instead: bodies are private."""
    with pytest.raises(ApiError) as refused:
        parse(b'{"messages": "my secret" oops}')
    assert "secret" not in refused.value.message
    assert "byte" in refused.value.message


MIB = 1 << 20
MANY = VALUES_MAX + 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"[]," * MANY + b"1]}",
        b'{"a":[' + b"{}," * MANY + b"1]}",
        b'{"a":[' + b"1," * MANY + b"1]}",
        b'{"a":[' + b'"",' * MANY + b'""]}',
        b'{"a":[' + b'",",' * MANY + b'""]}',
        b'{"a":[' + b'"\\\\",' * MANY + b'""]}',
        b'{"a":[' + b'"\\"",' * MANY + b'""]}',
        b'{"a":{' + b",".join(b'"%d":1' % number for number in range(VALUES_MAX // 2 + 1)) + b"}}",
        b'{"a":' + b"[" * MANY,
        b'{"a":"' + b"," * MIB + b'","b":[' + b"[]," * MANY + b"1]}",
    ],
    ids=[
        *("lists", "objects", "numbers", "strings", "commas", "backslashes", "quotes"),
        *("members", "open", "text before"),
    ],
)
def test_too_many_values_are_refused(body: bytes) -> None:
    """Any kind of value at any place counts."""
    for read in (parse, refuse_too_many_values):
        with pytest.raises(ApiError) as refused:
            read(body)
        assert (refused.value.status, refused.value.code) == (400, "json_too_many_values")


@pytest.mark.parametrize(
    "text",
    [
        *(",:[{" * MIB, '\\"' * 3 * MIB, "\\" * (2 * MIB + 1), '\\",' * 2 * MIB),
        "\\" * MIB + '"' + ",[]" * MIB,
    ],
    ids=["separators", "quotes", "backslashes", "both", "a long escape"],
)
def test_text_of_any_content_is_one_value(text: str) -> None:
    """Separators, quotes and backslashes in strings are not counted."""
    body = json.dumps({"a": text, "b": [0] * (VALUES_MAX // 2)}).encode()

    assert parse(body).keys() == {"a", "b"}


def test_a_long_body_is_read_as_a_short_one() -> None:
    """Every rule holds beyond the size up to which a body is read as one text."""
    text = b'"%b"' % (b"\\\\" * LARGE_BYTES)
    many = b",".join(b'{"a":[{"b":"%b"}]}' % (b"x" * 90) for _ in range(LARGE_BYTES // 50))
    body = b' {"text":%b,"many":[%b],"none":null}' % (text, many)
    assert parse(body).keys() == {"text", "many"}


@pytest.mark.parametrize(
    "twice",
    [
        b'{"a":1,"text":%b,"a":2}',
        b'{"a":1,"text":%b,"\\u0061":2}',
        b'{"x":[%b,{"b":1,"c":[],"b":1}]}',
        b'{"x":{"y":{"a":1,"text":%b,"a":2}}}',
        b'{"x":[[{"text":%b,"z":[{"c":{"d":1,"d":1}}]}]]}',
    ],
)
def test_a_key_twice_in_a_long_body_is_refused(twice: bytes) -> None:
    """Any level counts, also where one of the two has an escape sequence."""
    text = b'"%b"' % (b'\\"a\\":1,' * LARGE_BYTES)
    with pytest.raises(ApiError) as refused:
        parse(twice % text)
    assert refused.value.code == "duplicate_key"


@pytest.mark.parametrize("odd", [0, 1, 2, 3])
@pytest.mark.parametrize("escaped", [b"\\\\", b'\\"', b"\\n"])
def test_a_slice_never_ends_within_an_escape_sequence(odd: int, escaped: bytes) -> None:
    """The slices of a long string may end anywhere else."""
    body = b'{"a":"%b%b%b","b":[1]}' % (b"x" * odd, escaped * LARGE_BYTES, b"[{,:" * VALUES_MAX)
    assert outside_strings(body, b"[{,:") == b"{:,:["
    assert parse(body).keys() == {"a", "b"}


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_the_place_of_a_byte_that_is_not_utf8_is_right(before: int) -> None:
    """The place is right in a long body, too."""
    head = b'{"a":"' + b"x" * before + "😀".encode() * (LARGE_BYTES // 2)
    with pytest.raises(ApiError, match=f"not valid UTF-8 at byte {len(head)}"):
        parse(head + b'\xff"}')
