"""Credentials and errors as most providers have them: the base of dialects."""

from __future__ import annotations

from collections.abc import Mapping

from services.errors import UpstreamError
from services.providers.failures import provider_failure


class UsualApi:
    """See `services.providers.base.ProviderApi`."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Classify an error response by the tables of all providers."""
        return provider_failure(status, headers, body)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The key as a bearer token. Local servers need none."""
        return {"authorization": f"Bearer {key}"} if key else {}
