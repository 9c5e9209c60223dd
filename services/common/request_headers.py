"""Forms of request headers, which REST and gRPC callers (in metadata) send alike."""

from __future__ import annotations

import re
from random import getrandbits

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def new_request_id() -> str:
    """Return an ID that no other request has. It is no secret, so the kernel is not asked."""
    return f"req-{getrandbits(128):032x}"


def request_id_or_new(given: str | None) -> str:
    """The caller's ID of its request, if it is fit for logs, or a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()
