"""Bindings of methods to HTTP: the annotations, checked against the messages at start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from gateway.transcoding.field_values import FieldPath, resolve
from gateway.transcoding.path_template import PathTemplate, parse

WHOLE_REQUEST = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """How one method is called over HTTP."""

    method: MethodDescriptor
    verb: str
    """The HTTP method, such as `GET`."""
    template: PathTemplate
    path_fields: Mapping[str, FieldPath]
    """The fields of the template's variables, by their names there."""
    takes_body: bool
    """Whether the body is a part of the request."""
    body_field: FieldDescriptor | None
    """The field that the body is. None: the body, if it is taken, is the whole request."""
    response_field: FieldDescriptor | None
    """The field that the body of the response is. None: the whole response."""

    @property
    def path(self) -> str:
        """The method's path in gRPC."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def bindings(services: Iterable[ServiceDescriptor]) -> list[Binding]:
    """Return the bindings of the services, the most literal templates first.

    Raises ValueError: an annotation is wrong, or of a kind that the edge does not serve. The
    message names the method.
    """
    found = [each for service in services for method in service.methods for each in _of(method)]
    return sorted(found, key=lambda binding: binding.template.precedence)


def _of(method: MethodDescriptor) -> Iterator[Binding]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    if rule.WhichOneof("pattern") is None:
        return
    try:
        yield _binding(method, rule)
    except ValueError as error:
        raise ValueError(f"{method.full_name}: {error}") from None


def _binding(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    verb = str(rule.WhichOneof("pattern"))
    if method.client_streaming:
        raise ValueError("requests do not stream over REST")
    if verb == "custom" or rule.additional_bindings:
        raise ValueError("custom verbs and additional bindings are not served")
    template = parse(getattr(rule, verb))
    whole = rule.body in {"", WHOLE_REQUEST}
    return Binding(
        method=method,
        verb=verb.upper(),
        template=template,
        path_fields={name: _path_field(method, name) for name in template.variables},
        takes_body=rule.body != "",
        body_field=None if whole else _field(method.input_type.fields_by_name, rule.body),
        response_field=_field(method.output_type.fields_by_name, rule.response_body)
        if rule.response_body
        else None,
    )


def _path_field(method: MethodDescriptor, name: str) -> FieldPath:
    path = resolve(method.input_type, name)
    if path is None or path.leaf.is_repeated:
        raise ValueError(f"no text of a path can be the value of {name!r}")
    return path


def _field(fields: Mapping[str, FieldDescriptor], name: str) -> FieldDescriptor:
    if name not in fields:
        raise ValueError(f"there is no field {name!r}")
    return fields[name]
