"""Sign-in check: whether a credential is valid, and the session that it begins."""

from __future__ import annotations

import hmac
import string

from gateway.backend import Backend
from gateway.console.sessions import Session, Sessions
from gateway.errors import ApiError
from services.common.key_format import PREFIX, well_formed
from services.domain.error_reason import ErrorReason

NAME_CHARS_MAX = 64
_NAME_CHARS = frozenset(f"{string.ascii_letters}{string.digits}_-.@")


class SignInCheck:
    """Checks keys with the service, and the operators' token here."""

    def __init__(self, backend: Backend, sessions: Sessions, operators_token: str) -> None:
        """Without `operators_token` only keys are valid."""
        self._backend = backend
        self._sessions = sessions
        self._operators_token = operators_token

    async def begin(self, credential: str, name: str, request_id: str) -> Session:
        """Return a session with a key, or with the operators' token and a name.

        Raises ApiError: it is not valid, or could not be checked.
        """
        if self._is_token(credential):
            return self._sessions.operator(credential, _readable(name))
        if not credential.startswith(PREFIX) or not well_formed(credential):
            raise ApiError(ErrorReason.INVALID_API_KEY, "It does not have the form of a key.")
        if not await self._backend.check_key(credential, request_id):
            raise ApiError(ErrorReason.AUTH_UNAVAILABLE, "The key could not be checked.")
        return self._sessions.tenant(credential)

    @property
    def takes_tokens(self) -> bool:
        """Whether operators can sign in."""
        return bool(self._operators_token)

    def _is_token(self, credential: str) -> bool:
        given = credential.encode("utf-8", "surrogateescape")
        return self.takes_tokens and hmac.compare_digest(given, self._operators_token.encode())


def _readable(name: str) -> str:
    """Return the characters of a name that metadata and logs can have."""
    return "".join(char for char in name.strip() if char in _NAME_CHARS)[:NAME_CHARS_MAX]
