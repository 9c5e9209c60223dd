from __future__ import annotations

import base64
import math
import struct
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.transcoding.field_values import resolve
from tests.gateway.transcoding.sample_service import CompiledService


def put(sample: CompiledService, name: str, *texts: str) -> Message:
    """Return a thing with one field set from texts."""
    descriptor = sample.service.methods_by_name["GetThing"].input_type
    path = resolve(descriptor, name)
    assert path is not None
    message = GetMessageClass(descriptor)()
    path.put(message, texts)
    return message


@given(number=st.integers(-(2**63), 2**63 - 1))
def test_every_integer(sample: CompiledService, number: int) -> None:
    """Every integer in range is read back."""
    assert put(sample, "int64_value", str(number)).int64_value == number  # type: ignore[attr-defined]


@given(number=st.floats())
def test_every_float(sample: CompiledService, number: float) -> None:
    """Every double is read back from the text that proto JSON gives it."""
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    text = "NaN" if math.isnan(number) else names.get(number, repr(number))

    read = put(sample, "double_value", text).double_value  # type: ignore[attr-defined]

    assert struct.pack("d", read) == struct.pack("d", number) or math.isnan(number)


@given(data=st.binary())
def test_all_bytes(sample: CompiledService, data: bytes) -> None:
    """Bytes are read in both alphabets of base64, with and without padding."""
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert put(sample, "bytes_value", text).bytes_value == data  # type: ignore[attr-defined]
        assert put(sample, "bytes_value", text.rstrip("=")).bytes_value == data  # type: ignore[attr-defined]


@given(text=st.text(), name=st.sampled_from(["int32_value", "kind", "bool_value", "bytes_value",
    "time", "duration", "mask", "float_value", "uint64_value", "bool_wrapper"]))  # fmt: skip
def test_every_text_is_read_or_refused(sample: CompiledService, text: str, name: str) -> None:
    """No text raises another error."""
    with suppress(ApiError):
        put(sample, name, text)


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("tags", ("a", "b,c", ""), {"tags": ["a", "b,c", ""]}),
        ("kinds", ("KIND_ROUND", "2"), {"kinds": ["KIND_ROUND", "KIND_SQUARE"]}),
        ("inner.inner.count", ("7",), {"inner": {"inner": {"count": 7}}}),
        ("inner.name", ("",), {"inner": {}}),
        ("nickname", ("",), {"nickname": ""}),
        ("stringWrapper", ("",), {"stringWrapper": ""}),
        ("int64_wrapper", ("7",), {"int64Wrapper": "7"}),
        ("bytes_wrapper", ("_w",), {"bytesWrapper": "/w=="}),
        ("time", ("2026-01-02T05:04:05.5+02:00",), {"time": "2026-01-02T03:04:05.500Z"}),
        ("duration", ("-1.5s",), {"duration": "-1.500s"}),
        ("mask", ("int32_value,inner.name",), {"mask": "int32Value,inner.name"}),
        ("mask", ("int32Value",), {"mask": "int32Value"}),
        ("kind", ("9",), {"kind": 9}),
        ("right", ("0",), {"right": 0}),
    ],
)
def test_texts_have_the_values_of_proto_json(
    sample: CompiledService, name: str, texts: tuple[str, ...], expected: dict[str, object]
) -> None:
    """An empty text sets the field, too."""
    assert json_format.MessageToDict(put(sample, name, *texts)) == expected


def test_digits_after_an_underscore_are_kept_in_masks(sample: CompiledService) -> None:
    """`write_1h` and `write1h` are different names of the proto."""
    message: Any = put(sample, "mask", "inner.write_1h,write1h,a_2b,aB")

    assert list(message.mask.paths) == ["inner.write_1h", "write1h", "a_2b", "a_b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("int32_value", "x"), ("kind", "ROUND"), ("inner.count", "1.5"), ("time", "now"),
     ("time", "2026-1-02T03:04:05Z"), ("time", "2026-02-30T03:04:05Z"), ("duration", " 60s"),
     ("duration", "1_0s"), ("mask", "a,,b"), ("mask", "a b"), ("mask", "a.")],
)  # fmt: skip
def test_the_error_names_the_field(sample: CompiledService, name: str, text: str) -> None:
    """A text that is not a value of the field is 400, with the field as `param`."""
    with pytest.raises(ApiError) as refused:
        put(sample, name, text)

    assert refused.value.param == name
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "name",
    ["", ".", "x", "inner", "inners", "inners.name", "labels", "labels.key", "name.x", "tags.x",
     "time.seconds", "inner.", ".inner", "int64_wrapper.value", "inner.x"],
)  # fmt: skip
def test_fields_that_are_not_parameters(sample: CompiledService, name: str) -> None:
    """Messages, maps and fields of repeated messages are none; a time is one text."""
    descriptor = sample.service.methods_by_name["GetThing"].input_type

    assert resolve(descriptor, name) is None


def test_two_values_for_one_field_are_an_error(sample: CompiledService) -> None:
    """A field that is not repeated has one value."""
    with pytest.raises(ApiError, match="more than once"):
        put(sample, "int32_value", "1", "1")


def test_two_members_of_a_oneof_are_an_error(sample: CompiledService) -> None:
    """The second member is refused, instead of replacing the first."""
    message = put(sample, "left", "a")
    path = resolve(sample.service.methods_by_name["GetThing"].input_type, "right")
    assert path is not None

    with pytest.raises(ApiError, match="excludes `left`"):
        path.put(message, ["1"])
