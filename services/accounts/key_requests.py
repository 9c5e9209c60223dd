"""Fields of requests about keys: IDs, overlaps of rotations, and requests that may be repeated."""

from __future__ import annotations

import hashlib
import re
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.tenants.v1 import tenant_service_pb2 as tenants

from services.accounts.proto_fields import in_range, valid_request_id
from services.storage.keys import KeyRequest

KEY_ID = re.compile(r"[ -~]{1,64}")
GONE = "There is no key with this ID, or it was revoked."

OVERLAP_MAX_S = 90 * 24 * 3600
"""Maximum time that former secrets stay valid."""

_Create = TypeVar("_Create", keys.CreateKeyRequest, tenants.CreateKeyRequest)


def overlap_s(overlap: Duration) -> float:
    """Return how long former secrets stay valid. Raise Failure INVALID_FIELD."""
    return in_range("overlap", overlap.ToMilliseconds(), 0, OVERLAP_MAX_S * 1000) / 1000


def key_request(request: _Create) -> KeyRequest | None:
    """Return the ID of a request that may be repeated, with its digest."""
    if not request.request_id:
        return None
    terms = type(request)()
    terms.CopyFrom(request)
    terms.ClearField("request_id")
    digest = hashlib.sha256(terms.SerializeToString(deterministic=True)).hexdigest()
    return KeyRequest(id=valid_request_id(request.request_id), fingerprint=digest)
