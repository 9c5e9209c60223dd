"""The secret that makes stolen digests useless. It is not in the database.

Given by the variable `POMOGATOR_PEPPER`, or by the file that `POMOGATOR_PEPPER_FILE`
names; else it is made at the first start, in the state directory. A fleet gives the
same one to all.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from services.storage.base import Database, StateError
from services.storage.settings import get_or_set_setting

FILE = "pepper"
BYTES_MIN = 16


class Pepper:
    """Turns keys into what is stored of them."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        # Copied for each key: to begin anew costs OpenSSL more than the digest.
        self._keyed = hmac.new(secret, digestmod="sha256")

    def digest(self, key: str) -> bytes:
        """HMAC-SHA256 of the key. Without the pepper it tells nothing about it."""
        keyed = self._keyed.copy()
        keyed.update(key.encode("utf-8", "surrogatepass"))
        return keyed.digest()

    def __repr__(self) -> str:
        return "***"


async def load_pepper(state: Path, env: Mapping[str, str], database: Database) -> Pepper:
    """The pepper of this state. StateError where it is too short, or another than its keys'."""
    pepper = Pepper(_secret(state, env))
    fingerprint = pepper.digest("fingerprint").hex()[:16]
    if await database.write(get_or_set_setting, "pepper", fingerprint) != fingerprint:
        raise StateError(
            "the pepper is not the one that the keys in the state were made with: "
            f"give the right one (POMOGATOR_PEPPER, POMOGATOR_PEPPER_FILE or {state / FILE})"
        )
    return pepper


def _secret(state: Path, env: Mapping[str, str]) -> bytes:
    if "POMOGATOR_PEPPER" in env:
        return _checked(env["POMOGATOR_PEPPER"].encode(), "POMOGATOR_PEPPER")
    given = env.get("POMOGATOR_PEPPER_FILE")
    file = Path(given) if given is not None else state / FILE
    try:
        if given is None and not file.exists():
            _make(file)
        return _checked(file.read_bytes().strip(), str(file))
    except OSError as error:
        raise StateError(f"{file}: {error.strerror}") from error


def _checked(secret: bytes, source: str) -> bytes:
    if len(secret) < BYTES_MIN:
        raise StateError(f"{source}: a pepper has at least {BYTES_MIN} bytes")
    return secret


def _make(file: Path) -> None:
    """Writes a new pepper: whole or not at all, and never over another."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_hex(32).encode())
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
