"""What crosses the edge beside bodies: headers to gRPC metadata, and back.

Both ways it is a list of what may pass, rebuilt from nothing. A client's other headers
never reach the service, the service's other metadata never reach a client.
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
from gateway.money import exact_usd
from gateway.telemetry.request_observer import TRACE_CONTEXT
from services.common.request_headers import is_idempotency_key

NOTES_HEADER = "x-pomogator-notes"
COST_HEADER = "x-pomogator-cost"
TIMEOUT_HEADER = "x-pomogator-timeout"
"""Seconds. From clients: how long they wait; to the service: how long the call could take when it
began, as gRPC says what is left of that only."""
NOTES_MAX_BYTES = 2048

_PASSED_UP: Sequence[tuple[str, re.Pattern[str]]] = (
    # https://www.w3.org/TR/trace-context/
    ("traceparent", re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")),
    ("tracestate", re.compile(r"[\x21-\x7e][\x20-\x7e]{0,510}[\x21-\x7e]")),
)
_PASSED_DOWN = ("x-ratelimit-", "x-pomogator-", "idempotency-replayed")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_ACTIONS = {
    value: name.removeprefix("NOTE_ACTION_").lower() for name, value in chat.NoteAction.items()
}


def call_metadata(
    headers: MultiMapping[str], key: str, request_id: str
) -> tuple[tuple[str, str], ...]:
    """What the service is told beside the request.

    Raises:
        ApiError: the idempotency key cannot be one. Without it a call might be made twice.
    """
    pairs = [("authorization", f"Bearer {key}"), ("x-request-id", request_id)]
    traced = TRACE_CONTEXT.get()
    if traced is not None:
        pairs += traced
    else:
        for name, form in _PASSED_UP:
            value = headers.get(name)
            if value is not None and form.fullmatch(value):
                pairs.append((name, value))
    once = headers.getall("Idempotency-Key", ())
    if once:
        if len(once) > 1 or not is_idempotency_key(once[0]):
            message = "Idempotency-Key must be 1 to 255 printable ASCII characters."
            raise invalid("idempotency-key", message)
        pairs.append(("idempotency-key", once[0]))
    return tuple(pairs)


def deadline_s(headers: MultiMapping[str], config: EdgeConfig, *, whole: bool) -> float:
    """How long the call may take.

    `x-pomogator-timeout` says so in seconds. The Python SDK also tells how long it waits for
    the next byte: for a whole answer that is its patience in all, while a stream is kept
    alive by comments, however long it takes.
    """
    limit = config.deadline_s
    asked = headers.get(TIMEOUT_HEADER)
    if asked is not None:
        seconds = _seconds(asked)
        if seconds is None:
            raise invalid(TIMEOUT_HEADER, "x-pomogator-timeout must be seconds, above 0.")
        limit = min(limit, seconds)
    patience = _seconds(headers.get("x-stainless-read-timeout", "")) if whole else None
    return min(limit, patience) if patience is not None else limit


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
    """What `x-pomogator-mode` asks for."""
    mode = headers.get("x-pomogator-mode")
    if mode is None:
        return chat.PARAMETER_POLICY_UNSPECIFIED
    if mode not in _POLICIES:
        raise invalid("x-pomogator-mode", "x-pomogator-mode must be `strict` or `adapt`.")
    return _POLICIES[mode]


def response_headers(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The service's initial metadata that clients may see."""
    return {
        key: value
        for key, value in pairs
        if key.startswith(_PASSED_DOWN)
        and isinstance(value, str)
        and _HEADER_VALUE.fullmatch(value)
    }


def cost_header(answer: chat.CreateChatCompletionResponse) -> dict[str, str]:
    """`x-pomogator-cost`: what was charged, in US dollars; nothing without accounts."""
    if not answer.HasField("cost_nano_usd"):
        return {}
    return {COST_HEADER: exact_usd(answer.cost_nano_usd).decode()}


def notes_header(notes: Iterable[chat.Note]) -> dict[str, str]:
    """`x-pomogator-notes`: compact JSON in ASCII, as many whole notes as have room."""
    rendered: list[str] = []
    size = len("[]")
    for note in notes:
        action = _ACTIONS.get(note.action, "changed")
        entry = {"param": note.param, "action": action, "detail": note.detail}
        text = json.dumps(entry, separators=(",", ":"))  # in ASCII, as headers are
        size += len(text) + len(",")
        if size > NOTES_MAX_BYTES:
            break
        rendered.append(text)
    return {NOTES_HEADER: f"[{','.join(rendered)}]"} if rendered else {}
