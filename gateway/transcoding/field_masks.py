"""Masks of updates: the fields of a body that a `PATCH` changes.

As in grpc-gateway, a `PATCH` without `update_mask` changes the fields that its body has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.transcoding.bindings import Binding
from gateway.transcoding.field_values import fields_by_names

UPDATE_MASK = "update_mask"
"""The field that https://google.aip.dev/134 gives to requests for updates."""

_FIELD_MASK = "google.protobuf.FieldMask"
_WELL_KNOWN = "google.protobuf."
_UNDERSCORED = re.compile(r"_([a-z])")


def complete_mask(binding: Binding, message: Any, body: Any) -> None:
    """Name the fields in the mask as the proto does. Without a mask, take those of the body."""
    resource = _resource(binding)
    inside = None if resource is None else _plain_message(resource)
    if resource is None or inside is None or not _has_mask(binding):
        return
    paths = message.update_mask.paths
    if paths:
        paths[:] = [_proto_path(inside, path) for path in paths]
    elif binding.verb == "PATCH" and resource is binding.body_field and isinstance(body, dict):
        bound = {path.name for path in binding.path_fields.values()}
        found = _paths(body, inside, "")
        paths.extend(path for path in found if f"{resource.name}.{path}" not in bound)


def _resource(binding: Binding) -> FieldDescriptor | None:
    """Return the field of the resource that is updated: the body's, or that of the path."""
    if binding.body_field is not None or not binding.takes_body:
        return binding.body_field
    return next((path.fields[0] for path in binding.path_fields.values()), None)


def _has_mask(binding: Binding) -> bool:
    field = binding.method.input_type.fields_by_name.get(UPDATE_MASK)
    return (
        field is not None
        and field.message_type is not None
        and field.message_type.full_name == _FIELD_MASK
    )


def _plain_message(field: FieldDescriptor) -> Descriptor | None:
    """Return the message of a field whose JSON has the fields of one message; None for others."""
    message = field.message_type
    if message is None or field.is_repeated or message.full_name.startswith(_WELL_KNOWN):
        return None
    return message


def _proto_path(message: Descriptor, path: str) -> str:
    """Return the path in the proto's names, where the message has its fields.

    `write1h` in the spelling of JSON may be `write_1h`: only the message tells.
    """
    names: list[str] = []
    inside: Descriptor | None = message
    for name in path.split("."):
        known = {} if inside is None else fields_by_names(inside)
        json_name = _UNDERSCORED.sub(lambda match: match[1].upper(), name)
        field = known.get(name) or known.get(json_name)
        names.append(name if field is None else field.name)
        inside = None if field is None else field.message_type
    return ".".join(names)


def _paths(body: Mapping[str, Any], message: Descriptor, prefix: str) -> Iterator[str]:
    """Yield the path of each value in the JSON of a message, which has been checked."""
    for name, value in body.items():
        field = fields_by_names(message)[name]
        path = f"{prefix}{field.name}"
        inside = _plain_message(field)
        if inside is not None and isinstance(value, dict) and value:
            yield from _paths(value, inside, f"{path}.")
        else:
            yield path
