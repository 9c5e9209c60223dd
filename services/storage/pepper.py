"""Pepper: the secret key of the digests that are stored in place of API keys.

It is not in the database, so stolen digests cannot be matched with keys. It comes from the
variable `POMOGATOR_PEPPER`, or from the file that `POMOGATOR_PEPPER_FILE` names; otherwise the
first start creates it in the state directory. All services on one database need the same pepper.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path

from services.storage.base import Database, StateError, Transaction
from services.storage.secret_file import secret_of_state

FILE = "pepper"
BYTES_MIN = 16


class Pepper:
    """Secret that turns API keys into the digests that are stored."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        # Copied for each key: creating an HMAC costs OpenSSL more time than the digest itself.
        self._keyed = hmac.new(secret, digestmod="sha256")

    def digest(self, key: str) -> bytes:
        """Return the HMAC-SHA256 of a key."""
        keyed = self._keyed.copy()
        keyed.update(key.encode("utf-8", "surrogatepass"))
        return keyed.digest()

    def __repr__(self) -> str:
        return "***"


async def load_pepper(state: Path, env: Mapping[str, str], database: Database) -> Pepper:
    """Load the pepper.

    Raise StateError: it is too short, not the one of the stored keys, or in a directory in which
    others can write.
    """
    pepper = Pepper(_secret(state, env))
    fingerprint = pepper.digest("fingerprint").hex()[:16]
    if await database.write(_get_or_set, "pepper", fingerprint) != fingerprint:
        raise StateError(
            "the pepper is not the one that the keys in the state were created with: "
            f"give the right one (POMOGATOR_PEPPER, POMOGATOR_PEPPER_FILE or {state / FILE})"
        )
    return pepper


def _get_or_set(name: str, value: str) -> Transaction[str]:
    """Return the value of a setting, after setting it to `value` if it was unset."""
    yield (
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, value),
    )
    rows = yield "SELECT value FROM settings WHERE name = ?", (name,)
    return str(rows[0][0])


def _secret(state: Path, env: Mapping[str, str]) -> bytes:
    if "POMOGATOR_PEPPER" in env:
        return _checked(env["POMOGATOR_PEPPER"].encode(), "POMOGATOR_PEPPER")
    given = env.get("POMOGATOR_PEPPER_FILE")
    file = Path(given) if given is not None else state / FILE
    try:
        secret = secret_of_state(state, FILE) if given is None else file.read_bytes().strip()
        return _checked(secret, str(file))
    except OSError as error:
        raise StateError(f"{file}: {error.strerror}") from error


def _checked(secret: bytes, source: str) -> bytes:
    if len(secret) < BYTES_MIN:
        raise StateError(f"{source}: a pepper must have at least {BYTES_MIN} bytes")
    return secret
