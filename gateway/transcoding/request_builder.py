"""Builder of an RPC's request message from path, query and body of an HTTP request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.errors import ApiError, invalid, json_error
from gateway.http.strict_json import (
    DEPTH_MAX,
    SURROGATE,
    refuse_half_surrogates,
    refuse_too_many_values,
)
from gateway.transcoding.bindings import Binding
from gateway.transcoding.field_masks import complete_mask
from gateway.transcoding.field_values import WRAPPED, FieldPath, resolve, unknown_parameter
from gateway.transcoding.json_checks import checked
from gateway.transcoding.json_scalars import WrittenFloat
from services.domain.error_reason import ErrorReason

PARAMETERS_MAX = 1000
"""The most parameters of a query."""

# Part of json_format's error messages. It occurs once for each field of the path to the invalid
# value, outermost field first.
_FAILED_FIELD = re.compile(r"Failed to parse (\w+) field: ")


def build(binding: Binding, variables: Mapping[str, str], query: str, body: bytes) -> Message:
    """Return the method's request: from the body, then the path, then the query.

    `variables` are the path's, still percent-encoded; `query` is raw. A field of the path replaces
    the same field of the body. Raises ApiError: path, query or body is not valid for the method.
    """
    message = GetMessageClass(binding.method.input_type)()
    value = _read_body(binding, message, body) if binding.takes_body else None
    for name, path in binding.path_fields.items():
        try:
            text = unquote(variables[name], errors="strict")
        except UnicodeDecodeError:
            raise invalid(path.name, f"`{path.name}` is not valid UTF-8.") from None
        path.put(message, [text])
    for path, texts in _query_parameters(binding, query):
        path.put(message, texts)
    complete_mask(binding, message, value)
    return message


def _read_body(binding: Binding, message: Message, body: bytes) -> Any:
    """Set the fields of the message that the body has. Return the body's JSON."""
    if not body.strip():
        return None
    value = _load(body)
    field = binding.body_field
    whole = value
    if field is not None and message.DESCRIPTOR.full_name not in WRAPPED:
        # In JSON a wrapper is its only field.
        whole = {field.name: value}
    whole = checked(whole, binding.method.input_type)
    try:
        json_format.ParseDict(whole, message, max_recursion_depth=DEPTH_MAX + 1)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise _invalid_body(str(error)) from None
    return value


def _load(body: bytes) -> Any:
    refuse_too_many_values(body)
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=WrittenFloat.of,
            parse_int=_read_integer,
            parse_constant=_refuse_constant,
        )
        if SURROGATE.search(body):
            refuse_half_surrogates(value)
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 at byte {error.start}."
        raise json_error("invalid_encoding", message) from None
    except json.JSONDecodeError as error:
        message = f"The body cannot be read: {error.msg} at character {error.pos}."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None
    except (RecursionError, ValueError):
        # Nested too deep, an integer of thousands of digits, or NaN.
        message = "The body cannot be read."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise json_error("duplicate_key", "An object of the body has a key twice.")
    return members


def _read_integer(text: str) -> int:
    """Return the integer. Calls of Python between long ones let other threads run."""
    return int(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _invalid_body(problem: str) -> ApiError:
    """Return the error for JSON that does not fit the message. `problem` is json_format's text."""
    name = ".".join(_FAILED_FIELD.findall(problem))
    if not name:
        return ApiError(ErrorReason.INVALID_JSON, "The body has another form.")
    return invalid(name, f"`{name}` is of the wrong type or out of range.")


def _query_parameters(binding: Binding, query: str) -> list[tuple[FieldPath, list[str]]]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX
        )
    except UnicodeDecodeError:
        raise invalid("query", "The query is not valid UTF-8.") from None
    except ValueError:
        raise invalid("query", f"The query has more than {PARAMETERS_MAX} parameters.") from None
    found: dict[str, tuple[FieldPath, str, list[str]]] = {}
    for name, text in pairs:
        path = _query_parameter(binding, name)
        _, first_name, texts = found.setdefault(path.name, (path, name, []))
        if name != first_name:
            raise invalid(path.name, f"`{path.name}` is given by more than one name.")
        texts.append(text)
    return [(path, texts) for path, _, texts in found.values()]


def _query_parameter(binding: Binding, name: str) -> FieldPath:
    """Return the field of a query parameter. Fields set by path or body are refused."""
    path = resolve(binding.method.input_type, name) if takes_query(binding) else None
    if path is None or not is_parameter(binding, path):
        raise unknown_parameter(name)
    return path


def takes_query(binding: Binding) -> bool:
    """Whether the query may hold parameters: the body is not the whole request."""
    return not binding.takes_body or binding.body_field is not None


def is_parameter(binding: Binding, path: FieldPath) -> bool:
    """Whether the field is a query parameter."""
    if binding.body_field is not None and path.fields[0].name == binding.body_field.name:
        return False
    return path.name not in {each.name for each in binding.path_fields.values()}
