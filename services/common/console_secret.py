"""Secret of console sessions, which the edges of one address share."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from services.common.config_tables import ConfigError

SECRET_VARIABLE = "POMOGATOR_CONSOLE_SECRET"  # noqa: S105 - the name, not the secret
SECRET_CHARS_MIN = 32


def console_secret(env: Mapping[str, str]) -> str:
    """Return the secret of console sessions from the environment, or a new one for this process.

    Raises ConfigError where it is too short.
    """
    given = env.get(SECRET_VARIABLE, "")
    if given and len(given) < SECRET_CHARS_MIN:
        raise ConfigError(f"{SECRET_VARIABLE} must have at least {SECRET_CHARS_MIN} characters")
    return given or secrets.token_urlsafe(SECRET_CHARS_MIN)
