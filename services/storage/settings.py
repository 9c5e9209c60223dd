"""Facts about the state itself, each under a name."""

from __future__ import annotations

from services.storage.base import Transaction


def get_or_set_setting(name: str, value: str) -> Transaction[str]:
    """The value of the setting, which is `value` if it had none."""
    yield (
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, value),
    )
    rows = yield "SELECT value FROM settings WHERE name = ?", (name,)
    return str(rows[0][0])
