"""Validation of metadata, and its form on arrival."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

Pairs: TypeAlias = Iterable[tuple[str, str | bytes]]

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: Header-Name, ASCII-Value.
_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[\x20-\x7e]*")


class Metadatum(NamedTuple):
    """One entry: a lower-case key, and text, or bytes where the key ends in `-bin`."""

    key: str
    value: str | bytes


def received(pairs: Pairs | None) -> tuple[Metadatum, ...]:
    """Return the entries as they arrive. Raises ValueError where gRPC would refuse them."""
    if not pairs:
        return ()
    return tuple([Metadatum(key, _value(key, value)) for key, value in pairs])


def _value(key: str, value: str | bytes) -> str | bytes:
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata was invalid: the key {key!r}")
    if key.endswith("-bin"):
        return value.encode() if isinstance(value, str) else value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if not _TEXT.fullmatch(text):
        raise ValueError(f"metadata was invalid: the value of {key!r}")
    return text
