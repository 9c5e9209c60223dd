"""Reloads that no operator asks a method for: by SIGHUP, and when the file has changed."""

from __future__ import annotations

from dataclasses import dataclass

from services.config import ConfigError
from services.operations.configuration_view import difference
from services.operations.operator_acts import OperatorActs
from services.serving.reload import Reloader


def reload_changes(reloader: Reloader) -> str:
    """Reload, and return what has changed as a diff. Raise ConfigError."""
    before = reloader.snapshots.current.config
    reloader.reload()
    return difference(before, reloader.snapshots.current.config)


@dataclass(frozen=True, slots=True)
class SystemReload:
    """Reloads, each with its entry in the audit log."""

    reloader: Reloader
    acts: OperatorActs

    def reload(self, cause: str) -> None:
        """Reload because of `cause`. A wrong configuration is logged, and the old one stays."""
        try:
            diff = reload_changes(self.reloader)
        except ConfigError:
            return  # It is logged.
        self.acts.record_system_reload(cause, diff)
