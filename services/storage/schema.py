"""The tables, by version. A version that was released is never edited: a new one follows it.

Written so that both databases read it: names of types mean the same, times are
milliseconds since 1970, money is whole nano-USD (10⁻⁹ USD; an account holds up to
9.2 billion USD). What only one of them understands stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.storage.base import StateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What leads from one version of the schema to the next. Statements end in `;` + newline."""

    both: str
    """For both databases."""
    sqlite: str = ""
    """For SQLite, after that."""
    postgres: str = ""
    """For PostgreSQL, after that."""

    def statements(self, dialect: str) -> list[str]:
        """The statements for `sqlite` or `postgres`, in order."""
        own = self.sqlite if dialect == "sqlite" else self.postgres
        return [part.strip() for part in (self.both + "\n" + own).split(";\n\n") if part.strip()]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        both="""
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    unlimited BIGINT NOT NULL CHECK (unlimited IN (0, 1)),
    created_ms BIGINT NOT NULL
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (name),
    digest TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    display_name TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);

CREATE INDEX keys_by_age ON keys (created_ms, id);

""",
        postgres="""
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT';

""",
    ),
)

VERSION = len(MIGRATIONS)
"""The version that this code reads and writes."""


def pending(version: int, dialect: str) -> list[list[str]]:
    """The statements of each version after `version`. StateError where that is from the future."""
    if version > VERSION:
        raise StateError(
            f"the state has schema version {version}, this program knows up to {VERSION}: "
            "run the newer program, or restore a backup from before its first start"
        )
    return [migration.statements(dialect) for migration in MIGRATIONS[version:]]
