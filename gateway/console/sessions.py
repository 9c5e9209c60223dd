"""Sessions: the person at a browser, in a sealed cookie. An edge stores none.

Anybody has a session, also before the sign-in, so that every form has a CSRF token. A session ends
with its idle timeout or its lifetime, when the browser closes, and at once when its key is revoked:
each page asks the service with that key. A sign-out ends it in this process, for all copies of its
cookie; another edge with the same secret takes a copy until the idle timeout.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from gateway.console.seal import Seal

Role = Literal["visitor", "tenant", "operator"]

IDLE_TIMEOUT_S = 30 * 60
LIFETIME_S = 12 * 3600
RENEWAL_S = 60
"""Age at which a session that is in use gets a new cookie."""
ENDED_MAX = 100_000
"""The most sessions that are remembered as ended. Then the one that ended first is forgotten."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's session."""

    role: Role = "visitor"
    key: str = ""
    """The API key of a tenant."""
    name: str = ""
    """Name of an operator, for the audit log. Nothing proves it."""
    token_digest: str = ""
    """For an operator: digest of the token of the sign-in. Another token ends the session."""
    csrf_token: str
    """Comes back with every form."""
    started_s: int
    """When it began, in seconds since 1970."""
    seen_s: int
    """When its cookie was made, in seconds since 1970."""

    __repr__ = object.__repr__  # Without the key.


class Sessions:
    """Makes sessions, and reads them from cookies."""

    def __init__(self, secret: str, now: Callable[[], float] = time.time) -> None:
        self._seal = Seal(secret, "console session")
        self._now = now
        self._ended: dict[str, int] = {}
        """Ends of the lifetimes of sessions that have ended before, by their CSRF tokens."""

    def visitor(self) -> Session:
        """Return a new session of a visitor, who has not signed in."""
        now = int(self._now())
        return Session(csrf_token=secrets.token_urlsafe(16), started_s=now, seen_s=now)

    def tenant(self, key: str) -> Session:
        """Return a new session with this key."""
        return msgspec.structs.replace(self.visitor(), role="tenant", key=key)

    def operator(self, token: str, name: str) -> Session:
        """Return a new session of an operator who has shown this token."""
        digest = _digest(token)
        return msgspec.structs.replace(
            self.visitor(), role="operator", token_digest=digest, name=name
        )

    def read(self, cookie: str, operators_token: str) -> Session | None:
        """Return the session of a cookie. None: it is not valid, or not any more.

        `operators_token` is the current one; empty where operators cannot sign in.
        """
        plain = self._seal.unseal(cookie) if cookie else None
        if plain is None:
            return None
        session = msgspec.json.decode(plain, type=Session)
        now = self._now()
        is_late = now - session.seen_s > IDLE_TIMEOUT_S or now - session.started_s > LIFETIME_S
        if is_late or session.csrf_token in self._ended:
            return None
        return session if _is_current(session, operators_token) else None

    def end(self, session: Session) -> None:
        """End a session: no copy of its cookie is valid any more."""
        now = self._now()
        while self._ended:
            token, until = next(iter(self._ended.items()))
            if until > now and len(self._ended) < ENDED_MAX:
                break
            del self._ended[token]
        self._ended[session.csrf_token] = session.started_s + LIFETIME_S

    def to_cookie(self, session: Session) -> str:
        """Return the value of a cookie, with a new idle timeout."""
        seen = msgspec.structs.replace(session, seen_s=int(self._now()))
        return self._seal.seal(msgspec.json.encode(seen))

    def needs_renewal(self, session: Session) -> bool:
        """Whether the cookie of this session should be replaced."""
        return self._now() - session.seen_s >= RENEWAL_S


def _is_current(session: Session, operators_token: str) -> bool:
    if session.role != "operator":
        return True
    expected = _digest(operators_token) if operators_token else ""
    return bool(expected) and hmac.compare_digest(session.token_digest, expected)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
