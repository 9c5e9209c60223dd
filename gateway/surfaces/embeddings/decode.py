"""Decoder of requests: OpenAI's JSON to an `EmbeddingRequest`, and the form of its answer.

A field is checked here for its JSON type. The service checks entries, which other callers send,
too. Every error names its `param`. `null` means absent.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.http.strict_json import parse
from gateway.surfaces.json_fields import int32, one_of, read, text
from gateway.surfaces.openai_chat.extra_body import unpack
from services.domain.embeddings import EmbeddingRequest, EmbeddingSpec
from services.domain.spec import ParameterPolicy

VALUES_MAX = 400_000
"""The most values in a body. Nearly all of them are IDs of tokens; OpenAI takes 300,000."""

Encoding: TypeAlias = Literal["float", "base64"]
ENCODINGS: tuple[Encoding, ...] = ("float", "base64")

_STRINGS = msgspec.json.Decoder(list[str])

_IDS = msgspec.json.Decoder(list[int])
_LISTS_OF_IDS = msgspec.json.Decoder(list[list[int]])
_ID_BITS = 31
_FIRST = re.compile(rb"\[[ \t\r\n]*(.)", re.DOTALL)
"""The first character in an array."""


class DecodedRequest(Struct, frozen=True, kw_only=True):
    """A decoded request: the embeddings to compute, and the form of their vectors."""

    spec: EmbeddingSpec
    encoding: Encoding

    def request(self, policy: ParameterPolicy) -> EmbeddingRequest:
        """Return the request for the service."""
        wants_numbers = self.encoding == "float"
        return EmbeddingRequest(
            spec=self.spec, parameter_policy=policy, wants_numbers=wants_numbers
        )


def decode(body: bytes) -> DecodedRequest:
    """Decode a request. Raises ApiError: it is not one. The status is 4xx, whatever the bytes."""
    fields = parse(body, values_max=VALUES_MAX)
    unpack(fields)
    for name in ("model", "input"):
        if name not in fields:
            raise invalid(name, f"Missing required parameter: `{name}`.")
    spec: dict[str, Any] = {"model": text("model", fields.pop("model"))}
    spec |= _entries(fields.pop("input"))
    encoding: Encoding = "float"
    if (raw := fields.pop("encoding_format", None)) is not None:
        encoding = one_of("encoding_format", text("encoding_format", raw), ENCODINGS)
    if (raw := fields.pop("dimensions", None)) is not None:
        spec["dimensions"] = int32("dimensions", raw)
    for name in ("user", "input_type"):
        if (raw := fields.pop(name, None)) is not None:
            spec[name] = text(name, raw)
    extra_json = msgspec.json.encode(fields) if fields else b""
    return DecodedRequest(spec=EmbeddingSpec(**spec, extra_json=extra_json), encoding=encoding)


def _entries(raw: Raw) -> dict[str, object]:
    """Return the field of the entries: a text, texts, a text as token IDs, or several of those."""
    found = _FIRST.match(memoryview(raw))
    if found is None:
        return {"texts": [text("input", raw)]}
    if found[1] == b'"':
        return {"texts": read("input", raw, _STRINGS)}
    if found[1] == b"[":
        return {"token_ids": _checked(read("input", raw, _LISTS_OF_IDS))}
    ids = read("input", raw, _IDS)
    return {"token_ids": _checked([ids])} if ids else {}


def _checked(entries: list[list[int]]) -> list[list[int]]:
    for index, ids in enumerate(entries):
        if ids and not 0 <= min(ids) <= max(ids) < 1 << _ID_BITS:
            raise invalid(f"input[{index}]", f"Invalid input[{index}]: it is no list of token IDs.")
    return entries
