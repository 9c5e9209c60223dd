"""Settings of the state, as statements: named values that are set once."""

from __future__ import annotations

from services.storage.base import Transaction


def get_or_set_setting(name: str, value: str) -> Transaction[str]:
    """Return the value of a setting, after setting it to `value` if it was unset."""
    yield (
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, value),
    )
    rows = yield "SELECT value FROM settings WHERE name = ?", (name,)
    return str(rows[0][0])
