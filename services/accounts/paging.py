"""Page tokens: where a list goes on, in a form that says nothing to its holder."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000

Position = tuple[int, str]
"""The time and the ID of the last thing on a page: what every list is ordered by."""

START: Position = (-1, "")

_Time = Annotated[int, msgspec.Meta(ge=-1, le=2**62)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$", max_length=512)]
_DECODER: msgspec.json.Decoder[Position] = msgspec.json.Decoder(tuple[_Time, _Id])
"""Knows positions that databases can hold: callers can make tokens too."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """What a list request asks for."""

    size: int
    after: Position

    @classmethod
    def of(cls, page_size: int, page_token: str) -> Page:
        """Reads a request's fields. INVALID_FIELD where they are out of range or not ours."""
        if not 0 <= page_size <= PAGE_SIZE_MAX:
            raise Failure(
                reasons.ERROR_REASON_INVALID_FIELD,
                f"page_size is in [0, {PAGE_SIZE_MAX}]",
                param="page_size",
            )
        return cls(page_size or PAGE_SIZE_DEFAULT, _decode(page_token) if page_token else START)

    @property
    def limit(self) -> int:
        """How many to ask for: one more than is shown, to know whether there are more."""
        return self.size + 1

    def items(self, found: Sequence[T]) -> Sequence[T]:
        """What is shown of what was found."""
        return found[: self.size]

    def next_token(self, found: Sequence[T], last: Position) -> str:
        """The next page's token, where `last` was shown last; empty if there is no more."""
        if len(found) <= self.size:
            return ""
        return urlsafe_b64encode(msgspec.json.encode(last)).decode()


def _decode(token: str) -> Position:
    try:
        return _DECODER.decode(urlsafe_b64decode(token.encode()))
    except (binascii.Error, UnicodeError, msgspec.DecodeError, ValueError) as error:
        raise Failure(
            reasons.ERROR_REASON_INVALID_FIELD,
            "page_token is not one that a list gave",
            param="page_token",
        ) from error
