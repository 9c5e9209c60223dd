"""JSON fields of requests that are no JSON: gRPC callers send texts, trusted edges any bytes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from msgspec.structs import force_setattr

from services.domain.spec import ChatCompletionSpec, ResponseFormat
from services.errors import Failure
from tests.services.providers.planted_specs import MODELS, encode, planted

BAD = (b"\xff", b'{"a":"\xff"}', b'{"\xff":1}', b'"\xff"', b'{"a":')


def json_fields(value: object, path: str = "") -> Iterator[tuple[str, msgspec.Struct, str]]:
    """Yield each field with JSON in a struct and those in it: its path, its struct and its name."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            at = f"{path}.{field.name}"
            if field.name.endswith("json") and field.type is bytes:
                yield at, value, field.name
            yield from json_fields(getattr(value, field.name), at)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from json_fields(each, f"{path}[{index}]")


def request() -> ChatCompletionSpec:
    """A request with all objects that have such fields."""
    form = ResponseFormat(type="json_schema", name="x", schema_json=b"{}")
    return planted({}, response_format=form)


PATHS = [path for path, _, _ in json_fields(request())]


@pytest.mark.parametrize("dialect", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_a_field_that_is_no_json_is_refused_or_left_out(dialect: str, path: str) -> None:
    """No provider gets it, and it is no fault of the gateway's."""
    for bad in BAD:
        spec = request()
        place = {at: (struct, name) for at, struct, name in json_fields(spec)}
        force_setattr(*place[path], bad)
        # A body that is sent is read as UTF-8.
        assert outcome(spec, dialect) in {"INVALID_FIELD", "UNSUPPORTED_FEATURE", "sent"}


def outcome(spec: ChatCompletionSpec, dialect: str) -> str:
    """The reason of a refusal, or `sent`."""
    try:
        encode(spec, dialect, "all")
    except Failure as failure:
        return failure.reason
    return "sent"
