"""Routes of the contract: the `google.api.http` annotations of methods, as aiohttp writes paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

# `{model=**}` is a variable of several segments: google.api.http, "Path template syntax".
_VARIABLE = re.compile(r"\{(\w+)=\*\*\}")


def contract_routes(service: ServiceDescriptor) -> Iterator[tuple[str, str, str]]:
    """Yield name, verb and path of each method of `service` that has a REST form."""
    for method in service.methods:
        rule = _rule(method)
        verb = rule.WhichOneof("pattern")
        if verb is not None:
            path: str = getattr(rule, verb)
            yield method.name, verb.upper(), _VARIABLE.sub(r"{\1:.+}", path)


def _rule(method: MethodDescriptor) -> http_pb2.HttpRule:
    extension: Any = annotations_pb2.http  # the type stubs declare a field, not an extension
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[extension]
    return rule
