from __future__ import annotations

import json

import pytest

from gateway.errors import ApiError
from gateway.transcoding.bindings import bindings
from gateway.transcoding.request_builder import build
from tests.gateway.transcoding.corpus import (
    LAX_BODIES,
    QUOTED_BODIES,
    REFUSED_BODIES,
    UNUSUAL_BODIES,
)
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
        ('{"int64_value":9007199254740993.0}', "int64_value"),
    ],
)
def test_the_error_names_the_path(sample: CompiledService, body: str, param: str) -> None:
    """The path has the names of the proto, and the index in an array."""
    with pytest.raises(ApiError) as refused:
        read(sample, body)

    assert (refused.value.status, refused.value.param) == (400, param)


def read(sample: CompiledService, body: str) -> None:
    """Read a body as the edge does."""
    found = bindings([sample.service])
    (binding,) = (each for each in found if each.method.name == "UndoThing")
    build(binding, {"name": "a"}, "", body.encode())
