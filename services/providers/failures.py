"""Classification of providers' errors: reason, message for the caller, and retry delay.

    body ──read_error──► ProviderError ──classify──► a reason of our contract
                                       ──public_message──► message for the caller
    headers, message ──retry_delay.retry_after_s──► retry delay
    all of these: provider_failure()

Providers are inconsistent: one reports an empty account as 402, one as 429, one as 400. So the
reason follows from status, code and message together, by the tables in
`services.providers.failure_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from services.common.call_names import PROVIDER_CODE
from services.common.json_errors import NOT_JSON
from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.failure_rules import (
    CODES,
    FIREWALLED,
    GENERAL_CODES,
    OF_THE_REQUEST,
    SECRETS,
    SETTLED,
    STATUSES,
    TEXTS,
    UNSPOKEN_CODES,
)
from services.providers.retry_delay import retry_after_s
from services.providers.surrogate_joiner import read_replaced
from services.reason_table import REASONS

MESSAGE_MAX = 500
"""Characters of a provider's message that a caller may see."""

_READ_MAX = 4000  # Characters of a message that are classified.
_ALL = frozenset(REASONS)
_MESSAGES = ("message", "error", "errors", "detail", "msg", "error_msg", "base_resp", "status_msg")
_NESTING_MAX = 5  # Nested errors: OpenRouter quotes Vertex, which quotes Gemini.


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """Error as the provider reports it, in any form of body. Unknown fields are empty."""

    message: str = ""
    """Human-readable text, which may contain secrets."""
    code: str = ""
    """Code, such as `context_length_exceeded`."""
    kind: str = ""
    """Kind, such as `invalid_request_error`; most providers call it `type`."""
    param: str = ""
    """The field at fault."""
    status: int = 0
    """HTTP status stated in the body, in `code` or elsewhere."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of a provider behind this provider, as its body quotes them. Lower-case names."""


def provider_failure(
    status: int, headers: Mapping[str, str], body: bytes, *, own_error: bool = True
) -> UpstreamError:
    """Classify the error in the body of a response.

    `status` and `headers` (lower-case names) are those of the response. If it started as a success,
    the status stated in the body counts. Without `own_error` the headers do not concern the error:
    `retry-after` beside a success is about the next rate-limit window.
    """
    error = read_error(body)
    effective = status if status >= 300 else error.status
    reason = classify(effective, error.code, error.kind, error.message)
    row = REASONS[reason]
    hints = {**error.headers, **headers} if own_error else error.headers
    code = public_code(error.code) if reason == ErrorReason.UPSTREAM_INVALID_REQUEST else ""
    unspoken = f"The provider answered with status {effective}." if effective else ""
    shown = public_message(error.message or unspoken)
    failure = UpstreamError(
        reason,
        row.message or shown,
        status=effective,
        param=public_param(error.param) or row.param,
        facts={PROVIDER_CODE: code} if code else None,
        retry_after_s=retry_after_s(hints, error.message[:_READ_MAX]),
    )
    failure.provider_message = shown if error.message else ""
    is_page = effective == FIREWALLED and body.lstrip().startswith(b"<")
    failure.is_of_request = is_page or OF_THE_REQUEST.search(error.message[:_READ_MAX]) is not None
    return failure


def classify(status: int, code: str, kind: str, message: str) -> ErrorReason:
    """Map an error to a reason. `status` is 0 if the error has none.

    The message takes precedence over the code, and the code over the status, since different causes
    share codes and statuses. A phrase counts only with the statuses of its rule, so that a server's
    stack trace is not taken for an empty account.
    """
    text = message[:_READ_MAX]
    for rule in TEXTS:
        if rule.holds(status, text):
            return rule.reason
    names = [name.lower().replace("-", "_") for name in (code, kind)]
    tables = (CODES,) if status else (CODES, GENERAL_CODES)
    for table in tables:
        for name in names:
            if name in table and table[name] in SETTLED.get(status, _ALL):
                return table[name]
    by_class = STATUSES.get(status // 100 * 100, ErrorReason.UPSTREAM_ERROR)
    return STATUSES.get(status, by_class)


def read_error(body: bytes) -> ProviderError:
    """Read the error in a body, or in the `error` of a chunk. Empty if there is no error."""
    text = body.decode("utf-8", "replace").strip().removeprefix("\ufeff")
    if text.startswith("<"):
        return ProviderError()  # The HTML page of a proxy says nothing about the call.
    found = _decoded(text)
    return _read(found, 0) if found is not None else ProviderError(message=text[:_READ_MAX])


def public_message(message: str) -> str:
    """Redact `message` for callers: one line without keys or account IDs, never empty."""
    cut = message[:_READ_MAX]
    if len(message) > _READ_MAX:
        cut = re.sub(r"\S*\Z", "", cut)  # Half a key would not be recognized.
    for pattern, replacement in SECRETS:
        cut = pattern.sub(replacement, cut)
    printable = "".join(char if char.isprintable() else " " for char in cut)
    line = " ".join(printable.split())
    if len(line) > MESSAGE_MAX:
        line = line[: MESSAGE_MAX - 3] + "..."
    return line or "The provider gave no reason."


def public_param(param: str) -> str:
    """Return `param` if it is a path into the request, else the empty string."""
    return param if re.fullmatch(r"[\w.\[\]-]{1,100}", param, re.ASCII) else ""


def public_code(code: str) -> str:
    """Return `code` if callers can act on it, as on `unsupported_value`, else the empty string."""
    if not re.fullmatch(r"[\w.-]{1,64}", code, re.ASCII) or UNSPOKEN_CODES.search(code):
        return ""
    name = code.lower().replace("-", "_")
    known = name in CODES or name in GENERAL_CODES
    return "" if known or public_message(code) != code else code


def _decoded(text: str) -> object | None:
    """Decode the JSON object, array or string in `text`. None if it is not JSON."""
    if not text.startswith(("{", "[", '"')):
        return None
    try:
        found: object = msgspec.json.decode(text)
    except NOT_JSON:
        return read_replaced(text.encode())
    return found


def _read(found: object, depth: int) -> ProviderError:
    if depth > _NESTING_MAX:
        return ProviderError()
    if isinstance(found, str):
        nested = _decoded(found.strip())
        return ProviderError(message=found) if nested is None else _read(nested, depth + 1)
    if isinstance(found, list):
        return next((_read(item, depth + 1) for item in found if item), ProviderError())
    return _read_object(found, depth) if isinstance(found, dict) else ProviderError()


def _read_object(found: dict[str, object], depth: int) -> ProviderError:
    """Read one object. Inner objects take precedence over outer ones."""
    metadata = found.get("metadata")
    around = metadata if isinstance(metadata, dict) else {}
    error = ProviderError(
        code=_text(around.get("error_type"))
        or _text(found.get("code"))  # OpenRouter's is more specific.
        or _text(found.get("error_code")),
        kind=_text(found.get("type")) or _text(found.get("status")),
        param=_text(found.get("param")) or _location(found.get("loc")),
        status=next(_statuses(found), 0),
        headers=_headers(around.get("headers")) | _retry_info(found.get("details")),
    )
    inner = [found.get(name) for name in _MESSAGES]
    details = found.get("details")  # A string repeats the message, or is a stack trace.
    for value in (*inner, details if isinstance(details, list) else None, around.get("raw")):
        if value:
            error = _merged(error, _read(value, depth + 1))
    return error


def _merged(outer: ProviderError, inner: ProviderError) -> ProviderError:
    """Merge `inner` into `outer`. An inner message brings its own code and kind."""
    if not inner.message:
        return outer
    return replace(
        inner,
        code=inner.code or outer.code,
        kind=inner.kind or outer.kind,
        param=inner.param or outer.param,
        status=inner.status or outer.status,
        headers={**outer.headers, **inner.headers},
    )


def _statuses(found: Mapping[str, object]) -> Iterator[int]:
    """HTTP statuses stated in an object."""
    for name in ("code", "status", "status_code", "raw_status_code", "error_code"):
        text = _text(found.get(name))
        if len(text) == 3 and text.isascii() and text.isdigit() and "300" <= text < "600":
            yield int(text)


def _headers(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name.lower(): _text(value) for name, value in found.items()}


def _retry_info(details: object) -> dict[str, str]:
    """The delay of a `google.rpc.RetryInfo`, such as `36.5s`, as a `retry-after` header."""
    for detail in details if isinstance(details, list) else ():
        delay = _text(detail.get("retryDelay")) if isinstance(detail, dict) else ""
        if delay.endswith("s"):
            return {"retry-after": delay.removesuffix("s")}
    return {}


def _location(found: object) -> str:
    """Convert FastAPI's `loc`, such as `["body", "tool_choice"]`, to a path."""
    if not isinstance(found, list):
        return ""
    return ".".join(_text(part) for part in found).removeprefix("body.")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
