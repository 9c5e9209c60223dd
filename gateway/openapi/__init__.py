"""OpenAPI document of everything that the edge serves.

Modules, in the order in which data flows:

    paths     bindings as paths
    schemas   messages as JSON Schema

`chat.json` describes by hand the bodies in another form than proto JSON: chat completions,
embeddings, responses and models in OpenAI's form, messages in Anthropic's, key and credits in
OpenRouter's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web
from google.protobuf.descriptor import ServiceDescriptor

from gateway.errors import ROWS
from gateway.openapi.paths import describe
from gateway.openapi.schemas import Schema, Schemas
from gateway.surfaces.anthropic_messages import errors as anthropic
from gateway.transcoding.bindings import bindings

__all__ = ["handler", "openapi"]

OPENAI_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/input_tokens",
)
MESSAGES_PATHS = ("/v1/messages", "/v1/messages/count_tokens")

_PARAMETER = re.compile(r"\{([^}]*)\}")


def openapi(
    services: Iterable[ServiceDescriptor] = (), *, completions: bool = True, version: str = "1"
) -> dict[str, Any]:
    """Return the document: every annotated method of the services, and the part written by hand.

    `completions`: chat completions and models are served, so that part is included.
    """
    schemas = Schemas()
    by_hand = _by_hand() if completions else {"paths": {}, "schemas": {}}
    paths: dict[str, Schema] = by_hand["paths"]
    shapes = {shape(path): path for path in paths}
    for binding in bindings(services):
        if binding.verb.lower() in paths.get(binding.template.source, {}):
            continue  # Described by hand, since its form is not proto JSON.
        path, verb, operation = describe(binding, schemas)
        known = shapes.setdefault(shape(path), path)
        rename_parameters(operation, path, known)
        paths.setdefault(known, {})[verb] = operation
    return {
        "openapi": "3.1.1",
        "info": {"title": "Pomogator", "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "anthropicKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {**by_hand["schemas"], "Error": _error(), **schemas.found},
        },
    }


def _by_hand() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        resources.files(__name__).joinpath("chat.json").read_text("utf-8")
    )
    paths = document["paths"]
    for path in OPENAI_PATHS:
        paths[path]["post"]["responses"] |= _failures()
    for path in MESSAGES_PATHS:
        paths[path]["post"]["responses"] |= _anthropic_failures()
    return document


def _failures() -> Schema:
    """Return the response of each status with which a call can fail, with its codes."""
    codes: dict[int, list[str]] = {}
    for row in ROWS:
        codes.setdefault(row.http, []).append(f"`{row.code}`")
    return {
        str(status): _failure(
            f"`code` is one of: {', '.join(dict.fromkeys(codes[status]))}.", "Error"
        )
        for status in sorted(codes)
    }


def _anthropic_failures() -> Schema:
    """Return the response of each status in Anthropic's form, with its type."""
    return {
        str(status): _failure(f"`type` is `{anthropic.TYPES[status]}`.", "AnthropicError")
        for status in sorted({anthropic.status_of(row) for row in ROWS})
    }


def _failure(description: str, schema: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def shape(path: str) -> str:
    """Return the path without the names of its parameters."""
    return _PARAMETER.sub("{}", path)


def rename_parameters(operation: Schema, path: str, known: str) -> None:
    """Give the parameters of `path` the names in `known`: in OpenAPI the two are one path."""
    names = dict(zip(_PARAMETER.findall(path), _PARAMETER.findall(known), strict=True))
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            parameter["name"] = names[parameter["name"]]


def handler(document: Mapping[str, Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that serves the document, for `/openapi.json`."""
    body = msgspec.json.encode(document)

    async def get(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return get


def _error() -> Schema:
    """Return the schema of every failure."""
    members: Schema = {
        "message": {"type": "string", "description": "For people."},
        "type": {"type": "string", "enum": sorted({row.type for row in ROWS})},
        "param": {"type": ["string", "null"], "description": "The field at fault."},
        "code": {"type": "string", "examples": sorted({row.code for row in ROWS})},
    }
    error = {"type": "object", "properties": members, "required": list(members)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
