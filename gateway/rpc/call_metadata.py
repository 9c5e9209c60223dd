"""Metadata of calls: HTTP headers to gRPC metadata, and back.

Both directions have a list of allowed names. Other headers of a client never reach the service,
and other metadata of the service never reach a client.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

from multidict import MultiMapping
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.telemetry.request_observer import TRACE_CONTEXT
from services.common.call_names import IDEMPOTENCY_KEY_HEADER, REQUEST_ID_HEADER, TIMEOUT_HEADER
from services.common.money import exact_usd
from services.common.request_headers import is_idempotency_key

NOTES_HEADER = "x-pomogator-notes"
COST_HEADER = "x-pomogator-cost"
NOTES_MAX_BYTES = 2048

_TRACE_HEADERS: Sequence[tuple[str, re.Pattern[str]]] = (
    # https://www.w3.org/TR/trace-context/
    ("traceparent", re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")),
    ("tracestate", re.compile(r"[\x21-\x7e][\x20-\x7e]{0,510}[\x21-\x7e]")),
)
_CLIENT_METADATA = ("x-ratelimit-", "x-pomogator-", "idempotency-replayed")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_ACTIONS = {
    value: name.removeprefix("NOTE_ACTION_").lower() for name, value in chat.NoteAction.items()
}


def call_metadata(
    headers: MultiMapping[str], key: str, request_id: str
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call to the service.

    Raises:
        ApiError: the idempotency key is malformed. To drop it might repeat a completion.
    """
    pairs = [("authorization", f"Bearer {key}"), (REQUEST_ID_HEADER, request_id)]
    trace_context = TRACE_CONTEXT.get()
    if trace_context is not None:
        pairs += trace_context
    else:
        for name, form in _TRACE_HEADERS:
            value = headers.get(name)
            if value is not None and form.fullmatch(value):
                pairs.append((name, value))
    keys = headers.getall("Idempotency-Key", ())
    if keys:
        if len(keys) > 1 or not is_idempotency_key(keys[0]):
            message = "Idempotency-Key must be 1 to 255 printable ASCII characters."
            raise invalid(IDEMPOTENCY_KEY_HEADER, message)
        pairs.append((IDEMPOTENCY_KEY_HEADER, keys[0]))
    return tuple(pairs)


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
    read_timeout_s = _seconds(headers.get("x-stainless-read-timeout", "")) if whole else None
    return limit if read_timeout_s is None else min(limit, read_timeout_s)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


_POLICIES = {
    "adapt": chat.PARAMETER_POLICY_ADAPT,
    "strict": chat.PARAMETER_POLICY_STRICT,
}


def parameter_policy(headers: MultiMapping[str]) -> chat.ParameterPolicy.ValueType:
    """Return the policy of the header `x-pomogator-mode`."""
    mode = headers.get("x-pomogator-mode")
    if mode is None:
        return chat.PARAMETER_POLICY_UNSPECIFIED
    if mode not in _POLICIES:
        raise invalid("x-pomogator-mode", "x-pomogator-mode must be `strict` or `adapt`.")
    return _POLICIES[mode]


def response_headers(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return the headers for clients in the service's metadata."""
    return {
        key: value
        for key, value in pairs
        if key.startswith(_CLIENT_METADATA)
        and isinstance(value, str)
        and _HEADER_VALUE.fullmatch(value)
    }


def cost_header(answer: chat.CreateChatCompletionResponse) -> dict[str, str]:
    """Return the header `x-pomogator-cost`, the charge in US dollars; nothing without accounts."""
    if not answer.HasField("cost_nano_usd"):
        return {}
    return {COST_HEADER: exact_usd(answer.cost_nano_usd)}


def notes_header(notes: Iterable[chat.Note]) -> dict[str, str]:
    """Return the header `x-pomogator-notes`: compact JSON in ASCII, of as many notes as fit."""
    rendered: list[str] = []
    size = len("[]")
    for note in notes:
        action = _ACTIONS.get(note.action, "changed")
        entry = {"param": note.param, "action": action, "detail": note.detail}
        text = json.dumps(entry, separators=(",", ":"))  # in ASCII, like headers
        size += len(text) + len(",")
        if size > NOTES_MAX_BYTES:
            break
        rendered.append(text)
    return {NOTES_HEADER: f"[{','.join(rendered)}]"} if rendered else {}
