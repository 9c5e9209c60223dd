"""Call options in HTTP headers: idempotency key, labels, trace, deadline, parameter policy.

Other headers of a client never reach the service.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Self

import msgspec
from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.http.credentials import BEARER_ONLY, api_key
from gateway.telemetry.request_observer import TRACE_CONTEXT
from services.common.call_names import IDEMPOTENCY_KEY_HEADER, TAGS_HEADER, TIMEOUT_HEADER
from services.common.call_tags import read_tags
from services.common.request_headers import is_idempotency_key, session_of_headers
from services.domain.call_options import CallOptions, TraceContext
from services.domain.spec import ParameterPolicy

_TRACE_HEADERS: Sequence[tuple[str, re.Pattern[str]]] = (
    # https://www.w3.org/TR/trace-context/
    ("traceparent", re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")),
    ("tracestate", re.compile(r"[\x21-\x7e][\x20-\x7e]{0,510}[\x21-\x7e]")),
)


class HeaderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a call by its headers. Requests with equal headers share them."""

    call: CallOptions
    """Options of a call for a whole answer, but for those that differ between these requests."""
    stream_deadline_s: float
    """How long a call for a stream may take."""
    parameter_policy: ParameterPolicy
    session_id: str
    """Empty: the headers name no session."""

    __repr__ = object.__repr__  # Without the key.

    @classmethod
    def read(
        cls,
        headers: MultiMapping[str],
        config: EdgeConfig,
        credential_headers: Sequence[str] = BEARER_ONLY,
        surface: str = "",
    ) -> Self:
        """Return the options in the headers of a request to the API `surface`.

        Raises ApiError: an option is malformed, or there is no key.
        """
        return cls(
            call=CallOptions(
                key=api_key(headers, credential_headers),
                request_id="",
                deadline_s=deadline_s(headers, config, whole=True),
                idempotency_key=idempotency_key(headers) or None,
                trace_context=_client_trace(headers),
                surface=surface,
                tags=tags(headers),
            ),
            stream_deadline_s=deadline_s(headers, config, whole=False),
            parameter_policy=parameter_policy(headers),
            session_id=session_of_headers(headers),
        )


class SentHeaders(msgspec.Struct, kw_only=True):
    """Headers of a request, or of several that are alike, and what was read from them."""

    headers: MultiMapping[str]
    """Names have no case."""
    caller: str
    """The key as it was sent, to tell callers apart before it is checked; empty without one."""
    options: HeaderOptions | None = None
    """None: they have not been read yet, or one is malformed."""
    key_fresh_until: float = 0.0
    """A request that began later, by `time.perf_counter`, tells the known keys that the service has
    accepted the key."""

    __repr__ = object.__repr__  # Without the key.


def idempotency_key(headers: MultiMapping[str]) -> str:
    """Return the idempotency key; empty without one.

    Raises ApiError: it is malformed. To drop it might repeat a completion.
    """
    keys = headers.getall("Idempotency-Key", ())
    if not keys:
        return ""
    if len(keys) > 1 or not is_idempotency_key(keys[0]):
        message = "Idempotency-Key must be 1 to 255 printable ASCII characters."
        raise invalid(IDEMPOTENCY_KEY_HEADER, message)
    return keys[0]


def tags(headers: MultiMapping[str]) -> str:
    """Return the labels of the call; empty without any.

    Raises ApiError: they are malformed. gRPC could not carry some such text.
    """
    text = ",".join(headers.getall(TAGS_HEADER, ()))
    if text:
        try:
            read_tags(text)
        except ValueError as error:
            raise invalid(TAGS_HEADER, str(error)) from None
    return text


def trace_context(headers: MultiMapping[str]) -> TraceContext:
    """Return the context of the request's span, or else the client's, where it is well-formed."""
    own = TRACE_CONTEXT.get()
    return _client_trace(headers) if own is None else own


def _client_trace(headers: MultiMapping[str]) -> TraceContext:
    return {
        name: value
        for name, form in _TRACE_HEADERS
        if (value := headers.get(name)) is not None and form.fullmatch(value)
    }


def deadline_s(headers: MultiMapping[str], config: EdgeConfig, *, whole: bool) -> float:
    """Return how long the call may take.

    Clients set it in seconds with `x-pomogator-timeout`. The Python SDK also sends how long it
    waits for the next byte: that limits a whole answer, but no stream, which comments keep alive.
    """
    limit = config.deadline_s
    asked = headers.get(TIMEOUT_HEADER)
    if asked is not None:
        seconds = _seconds(asked)
        if seconds is None:
            raise invalid(TIMEOUT_HEADER, "x-pomogator-timeout must be seconds, above 0.")
        limit = min(limit, seconds)
    read_timeout = headers.get("x-stainless-read-timeout") if whole else None
    read_timeout_s = None if read_timeout is None else _seconds(read_timeout)
    return limit if read_timeout_s is None else min(limit, read_timeout_s)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def parameter_policy(headers: MultiMapping[str]) -> ParameterPolicy:
    """Return the policy of the header `x-pomogator-mode`."""
    match headers.get("x-pomogator-mode"):
        case None:
            return ""
        case "adapt" | "strict" as policy:
            return policy
    raise invalid("x-pomogator-mode", "x-pomogator-mode must be `strict` or `adapt`.")
