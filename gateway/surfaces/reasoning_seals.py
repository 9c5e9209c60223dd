"""Reasoning seals: reasoning that a provider wants back unchanged, as one string for clients.

    pomogator.details.BASE64  items of `reasoning_details`, or fragments of them
    pomogator.state.STATE     a `reasoning_state`

APIs that have a member for sealed reasoning carry that of other providers in this form.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from gateway.errors import ApiError, invalid
from gateway.http.strict_json import parse
from services.common.reasoning_fragments import gathered
from services.common.seal_prefixes import DETAILS_PREFIX, STATE_PREFIX

_OBJECTS = msgspec.json.Decoder(list[dict[str, object]])
_TEXTS = ("type", "format", "id", "text", "summary", "data", "signature")


class Detail(Struct):
    """An item of `reasoning_details`, or a fragment of one, as far as surfaces read it."""

    type: str | None = None
    format: str | None = None
    id: str | None = None
    index: int | None = None
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None

    @property
    def words(self) -> str:
        """Readable reasoning."""
        return f"{self.text or ''}{self.summary or ''}"

    @property
    def is_sealed(self) -> bool:
        """Whether its provider wants it back."""
        return bool(self.data or self.signature)

    def is_of(self, vendor: str) -> bool:
        """Whether its format is one of this vendor's."""
        return self.format is not None and self.format.startswith(vendor)


_DETAILS = msgspec.json.Decoder(list[Detail])


def read_details(details_json: bytes) -> list[Detail]:
    """Return the items of an answer's `reasoning_details`, without members of other types."""
    try:
        return _DETAILS.decode(details_json)
    except msgspec.ValidationError:
        return [_readable(item) for item in _OBJECTS.decode(details_json)]


def _readable(item: Mapping[str, object]) -> Detail:
    index = item.get("index")
    texts = {name: value for name in _TEXTS if isinstance(value := item.get(name), str)}
    return Detail(index=index if isinstance(index, int) else None, **texts)


def sealed_details(details_json: Iterable[bytes]) -> str:
    """Return `reasoning_details`, which may be in fragments, as a seal."""
    items = gathered(item for each in details_json for item in _OBJECTS.decode(each))
    return DETAILS_PREFIX + base64.b64encode(msgspec.json.encode(items)).decode("ascii")


def sealed_state(state: str) -> str:
    """Return a `reasoning_state` as a seal."""
    return STATE_PREFIX + state


def unsealed_details(param: str, seal: str) -> list[dict[str, object]]:
    """Return the items in a seal with `DETAILS_PREFIX`, the value of the field `param`.

    Raises ApiError: the seal is not as `sealed_details` makes it.
    """
    try:
        # As strict as with the body: its own check has not seen the JSON within base64.
        data = base64.b64decode(seal.removeprefix(DETAILS_PREFIX), validate=True)
        return _OBJECTS.decode(parse(b'{"details":%b}' % data)["details"])
    except (ApiError, KeyError, ValueError):
        raise invalid(param, f"Invalid {param}: it is not one that this service gave.") from None
