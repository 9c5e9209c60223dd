"""Page sizes, and page tokens: opaque positions in a list."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000

Position = tuple[int, str]
"""Time and ID of the last item of a page. Every list is ordered by them."""

START: Position = (-1, "")

_Time = Annotated[int, msgspec.Meta(ge=-1, le=2**62)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$", max_length=512)]
_DECODER: msgspec.json.Decoder[Position] = msgspec.json.Decoder(tuple[_Time, _Id])
"""Accepts only positions that the databases can store, since callers may forge tokens."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Page that a list request asks for."""

    size: int
    after: Position

    @classmethod
    def of(cls, page_size: int, page_token: str) -> Page:
        """Return the page for a request's fields. Raise Failure INVALID_FIELD."""
        if not 0 <= page_size <= PAGE_SIZE_MAX:
            raise Failure(
                ErrorReason.INVALID_FIELD,
                f"page_size must be in [0, {PAGE_SIZE_MAX}]",
                param="page_size",
            )
        return cls(page_size or PAGE_SIZE_DEFAULT, _decode(page_token) if page_token else START)

    @property
    def limit(self) -> int:
        """Number of rows to read: one more than the page, to detect the last page."""
        return self.size + 1

    def items(self, found: Sequence[T]) -> Sequence[T]:
        """Return the items of the page."""
        return found[: self.size]

    def next_token(self, found: Sequence[T], last: Position) -> str:
        """Return the token of the page after the position `last`. Empty on the last page."""
        if len(found) <= self.size:
            return ""
        return urlsafe_b64encode(msgspec.json.encode(last)).decode()


def _decode(token: str) -> Position:
    try:
        return _DECODER.decode(urlsafe_b64decode(token.encode()))
    except (binascii.Error, UnicodeError, msgspec.DecodeError, ValueError) as error:
        raise Failure(
            ErrorReason.INVALID_FIELD,
            "page_token is not the next_page_token of a list",
            param="page_token",
        ) from error
