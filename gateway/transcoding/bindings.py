"""What the annotations say, checked against the messages when the edge starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from gateway.transcoding.field_values import FieldPath, resolve
from gateway.transcoding.path_template import Template, parse

ANY_VERB = "*"
WHOLE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call one method over HTTP."""

    method: MethodDescriptor
    """The method."""
    verb: str
    """Such as `GET`; `*` for any."""
    template: Template
    """The path."""
    path_fields: Mapping[str, FieldPath]
    """The fields that the template's variables stand for, by their names there."""
    takes_body: bool
    """Whether the body says anything."""
    body_field: FieldDescriptor | None
    """The field that the body is. None: the body, if it is taken, is the whole request."""
    answer_field: FieldDescriptor | None
    """The field that the answer's body is. None: the whole answer."""

    @property
    def path(self) -> str:
        """The method as gRPC calls it."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def bindings(services: Iterable[ServiceDescriptor]) -> list[Binding]:
    """All bindings of the services, the most literal templates first.

    Raises:
        ValueError: an annotation says what cannot be. Its method is named.
    """
    found = [each for service in services for method in service.methods for each in _of(method)]
    return sorted(found, key=lambda binding: binding.template.precedence)


def _of(method: MethodDescriptor) -> Iterator[Binding]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    if rule.WhichOneof("pattern") is None:
        return
    if method.client_streaming:
        raise ValueError(f"{method.full_name}: requests do not stream over REST")
    for each in (rule, *rule.additional_bindings):
        try:
            yield _binding(method, each)
        except ValueError as error:
            raise ValueError(f"{method.full_name}: {error}") from None


def _binding(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise ValueError("a binding without a path")
    verb, path = pattern.upper(), getattr(rule, pattern)
    if pattern == "custom":
        verb, path = rule.custom.kind, rule.custom.path
    template = parse(path)
    whole = rule.body in {"", WHOLE}
    return Binding(
        method=method,
        verb=verb,
        template=template,
        path_fields={each.field: _path_field(method, each.field) for each in template.variables},
        takes_body=rule.body != "",
        body_field=None if whole else _field(method.input_type.fields_by_name, rule.body),
        answer_field=_field(method.output_type.fields_by_name, rule.response_body)
        if rule.response_body
        else None,
    )


def _path_field(method: MethodDescriptor, name: str) -> FieldPath:
    path = resolve(method.input_type, name)
    if path is None or path.leaf.is_repeated:
        raise ValueError(f"the path cannot say what {name!r} is")
    return path


def _field(fields: Mapping[str, FieldDescriptor], name: str) -> FieldDescriptor:
    if name not in fields:
        raise ValueError(f"there is no field {name!r}")
    return fields[name]
