from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.transcoding.bindings import bindings
from gateway.transcoding.request_builder import build
from tests.gateway.transcoding.corpus import (
    LAX_BODIES,
    QUOTED_BODIES,
    REFUSED_BODIES,
    UNUSUAL_BODIES,
)
from tests.gateway.transcoding.random_messages import messages
from tests.gateway.transcoding.sample_service import CompiledService


@pytest.mark.parametrize("body", LAX_BODIES + REFUSED_BODIES)
def test_values_outside_of_the_specification_are_refused(
    sample: CompiledService, body: str
) -> None:
    """The error names the field."""
    (field,) = json.loads(body)

    with pytest.raises(ApiError) as refused:
        read(sample, body)

    assert refused.value.status == 400
    assert str(refused.value.param).startswith(field)


@pytest.mark.parametrize("body", UNUSUAL_BODIES + QUOTED_BODIES)
def test_unusual_values_of_the_specification_are_read(sample: CompiledService, body: str) -> None:
    """No check refuses what proto JSON has."""
    read(sample, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"int64_value":1,"int64Value":1}', "int64_value"),
        ('{"int64Value":null,"int64_value":1}', "int64_value"),
        ('{"inner":{"write1h":1,"write_1h":1}}', "inner.write_1h"),
        ('{"inners":[{},{"topKind":1,"top_kind":2}]}', "inners[1].top_kind"),
        ('{"by_number":{"1":"a","1.0":"b"}}', "by_number"),
        ('{"by_number":{"100":"a","1e2":"b"}}', "by_number"),
        ('{"byNumber":{"0":"a","-0":"b"}}', "by_number"),
        ('{"inner":{"inner":{"stranger":1}}}', "inner.inner.stranger"),
        ('{"inners":[{"stranger":null}]}', "inners[0].stranger"),
        ('{"inner":{"count":"+1"}}', "inner.count"),
        ('{"numbers":[1,true]}', "numbers[1]"),
        ('{"kinds":[null]}', "kinds[0]"),
        ('{"left":"a","right":1}', "right"),
        ('{"int64_value":9223372036854775808.0}', "int64_value"),
    ],
)
def test_the_error_names_the_path(sample: CompiledService, body: str, param: str) -> None:
    """The path has the names of the proto, and the index in an array."""
    with pytest.raises(ApiError) as refused:
        read(sample, body)

    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("int32_value", text) for text in ("0x10", "-", "00", "-00", "1,000", "1e2.0", "NaN")),
        *(("int32_value", text) for text in ("１", "1e99999", "\\u00a01", "1\\u0000")),
        *(("double_value", text) for text in ("1f", "1d", "1e", "00.5", "+Infinity", "-inf")),
        *(("bytes_value", text) for text in ("YQ=", "YQ===", "Y", "=", "====", "+_", "YWI=YWI=")),
        *(("bytes_value", text) for text in ("YQ==\\n", " YQ==", "Y Q==")),
        *(("kind", text) for text in ("kind_round", "KIND_ROUND ", "1.0", "")),
        *(("time", text) for text in ("0000-12-31T23:59:59Z", "10000-01-01T00:00:00Z")),
        *(("time", text) for text in ("2026-01-02T24:00:00Z", "2026-01-02T23:59:60Z")),
        *(("time", text) for text in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00")),
        *(("time", text) for text in ("2026-01-02T03:04:05.1234567891Z", "2026-01-02T03:04:05,5Z")),
        *(("time", text) for text in ("2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+0100")),
        *(("duration", text) for text in ("-315576000001s", "1.0000000001s", "01s", "00s", "s")),
        *(("duration", text) for text in ("--1s", "1 s", "1s\\n", "0x1s")),
        *(("mask", text) for text in ("A", "a.", ",a", "a.*", "a_b")),
    ],
)
def test_no_other_text_is_a_value(sample: CompiledService, field: str, text: str) -> None:
    """Each form has a sibling that another reader of JSON might take."""
    with pytest.raises(ApiError) as refused:
        read(sample, f'{{"{field}":"{text}"}}')

    assert refused.value.param == field


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"int64_value":9007199254740993.0}', 9007199254740993),
        ('{"int64_value":"9007199254740993.0"}', 9007199254740993),
        ('{"int64_value":9.007199254740993e15}', 9007199254740993),
        ('{"int64_value":"-9.223372036854775808e18"}', -(2**63)),
        ('{"uint64_value":1.8446744073709551615e19}', 2**64 - 1),
        ('{"uint64_value":"1e19"}', 10**19),
        ('{"int64_wrapper":9007199254740993.0}', 9007199254740993),
        ('{"numbers":[1e2,"2e0"]}', [100, 2]),
        ('{"float_value":3.4028235e+38}', 3.4028234663852886e38),
        ('{"float_value":-3.4028235e+38}', -3.4028234663852886e38),
        ('{"double_value":1e-400}', 0.0),
        ('{"kind":1e0}', 1),
        ('{"left":"a","right":null}', "a"),
        ('{"bytes_value":"-_8"}', b"\xfb\xff"),
        ('{"bytes_value":"+/8="}', b"\xfb\xff"),
    ],
)
def test_numbers_and_bytes_are_read_exactly(
    sample: CompiledService, body: str, expected: object
) -> None:
    """A number over 2^53 with a fraction or an exponent does not pass through a double."""
    (field, *_) = json.loads(body)
    value = getattr(read(sample, body), field)

    assert getattr(value, "value", value) == expected


@settings(deadline=None)
@given(data=st.data())
def test_the_output_of_protobuf_is_read_back(sample: CompiledService, data: st.DataObject) -> None:
    """Protobuf's own writer has either spelling, and numbers or names for enums."""
    thing = data.draw(messages(sample.service.file.message_types_by_name["Thing"]))
    text = json_format.MessageToJson(
        thing,
        preserving_proto_field_name=data.draw(st.booleans()),
        use_integers_for_enums=data.draw(st.booleans()),
    )

    made = read(sample, text)
    made.name = thing.name

    assert made == thing


def read(sample: CompiledService, body: str) -> Any:
    """Read a body as the edge does."""
    found = bindings([sample.service])
    (binding,) = (each for each in found if each.method.name == "UndoThing")
    return build(binding, {"name": "a"}, "", body.encode())
