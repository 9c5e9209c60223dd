"""Configuration as operators see it: JSON without secrets, and what a reload would change."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.config import Config, ConfigError, Secret

HIDDEN = "***"
_LOGIN = re.compile(r"//[^/@\s\"]*@")
"""Name and password in a URL."""
_HIDDEN_TABLES = ("headers", "query")
"""Tables of a channel whose values may be credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationView:
    """The configuration in use, beside the one that a reload would use."""

    running: Callable[[], Config]
    """Returns the configuration in use."""
    read: Callable[[], Config]
    """Reads the configuration again. Raises ConfigError."""

    def get(self) -> pb.GetConfigurationResponse:
        """Return the configuration, the difference to the file, and the problems of the file."""
        text = shown(self.running())
        answer = pb.GetConfigurationResponse(configuration_json=text)
        try:
            pending = shown(self.read())
        except ConfigError as error:
            answer.problems.extend(str(error).splitlines())
        else:
            answer.diff = _diff(text, pending)
        return answer


def shown(config: Config) -> str:
    """Return the configuration as indented JSON. Secrets, if they are set, are `***`."""
    values: dict[str, Any] = msgspec.to_builtins(config, enc_hook=_hidden)
    for channel in values["channels"]:
        for table in _HIDDEN_TABLES:
            channel[table] = dict.fromkeys(channel[table], HIDDEN)
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False)
    return _LOGIN.sub(f"//{HIDDEN}@", text)


def difference(running: Config, pending: Config) -> str:
    """Return what changes between two configurations, as a unified diff. Empty: nothing."""
    return _diff(shown(running), shown(pending))


def _hidden(value: object) -> str:
    if isinstance(value, Secret):
        return HIDDEN if value else ""
    raise NotImplementedError(type(value).__name__)


def _diff(running: str, pending: str) -> str:
    lines = difflib.unified_diff(
        running.splitlines(), pending.splitlines(), "running", "pending", lineterm="", n=2
    )
    return "\n".join(lines)
