"""Tables, by schema version. A released version is never edited: changes are a new version.

The statements run on both databases: type names mean the same, times are milliseconds since 1970,
money is whole nano-USD (10⁻⁹ USD; an account holds up to 9.2 billion USD). Statements for only one
database stand beside them.

    accounts   balance (posted: the sum of the transfers) and held amount
    holds      one row for each admitted request, and one for each extension of its hold
    leases     live processes; the holds of a process without a lease are recovered
    budgets    amount spent and held by a key with a monthly budget, by month
    transfers  money moved from one account to another: double entry in one row,
               append-only. Names that begin with `:` are the gateway's own accounts

    notices            in PostgreSQL: number of all notices, for processes that cannot listen
    former_secrets     digests of keys before their rotation, and their expiry
    idempotency_keys   calls that must not be made twice, and their answers for a day
    models             models that were offered, and since when
    key_requests       requests that created a key, by their ID
    channel_switches   channels that operators have disabled
    hold_sums          sums of the holds that were deleted after their retention
    hold_retention     one row: the process that deletes them, and the time before which they,
                       and all that they were charged, may have been
    audit_entries      changes by operators and tenants; rows are only added, and deleted by age
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.storage.base import StateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Step from one schema version to the next. Statements end in `;` and an empty line."""

    both: str
    """Statements for both databases."""
    sqlite: str = ""
    """Further statements for SQLite."""
    postgres: str = ""
    """Further statements for PostgreSQL."""

    def statements(self, dialect: str) -> list[str]:
        """Return the statements for `sqlite` or `postgres`, in order."""
        own = self.sqlite if dialect == "sqlite" else self.postgres
        script = self.both + own
        if dialect == "postgres":
            # SQLite stores these tables in the order of their keys. PostgreSQL has no such clause.
            script = script.replace(" WITHOUT ROWID", "")
        return [part.strip() for part in script.split(";\n\n") if part.strip()]


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
    markup_bp BIGINT NOT NULL DEFAULT 0 CHECK (markup_bp >= 0),
    posted BIGINT NOT NULL DEFAULT 0,
    held BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
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

CREATE TABLE holds (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    account TEXT NOT NULL REFERENCES accounts (name),
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount >= 0),
    price TEXT NOT NULL,
    month TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'voided', 'recovered')),
    checkpoint BIGINT CHECK (checkpoint >= 0),
    charge BIGINT NOT NULL DEFAULT 0 CHECK (charge >= 0),
    overrun BIGINT NOT NULL DEFAULT 0 CHECK (overrun >= 0),
    source TEXT NOT NULL DEFAULT '',
    prompt_tokens BIGINT NOT NULL DEFAULT 0,
    completion_tokens BIGINT NOT NULL DEFAULT 0,
    thinking_tokens BIGINT NOT NULL DEFAULT 0,
    cache_read_tokens BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL,
    ended_ms BIGINT
) WITHOUT ROWID;

CREATE INDEX holds_open ON holds (owner) WHERE state = 'held';

CREATE INDEX holds_by_account ON holds (account, created_ms, id);

CREATE TABLE leases (
    owner TEXT PRIMARY KEY,
    until_ms BIGINT NOT NULL
);

CREATE TABLE budgets (
    key_id TEXT NOT NULL,
    month TEXT NOT NULL,
    spent BIGINT NOT NULL DEFAULT 0,
    held BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    PRIMARY KEY (key_id, month)
);

CREATE TABLE transfers (
    id TEXT PRIMARY KEY,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    created_ms BIGINT NOT NULL,
    CHECK (debit <> credit)
) WITHOUT ROWID;

CREATE INDEX transfers_by_debit ON transfers (debit, created_ms, id)
    WHERE debit <> ':deposits';

CREATE INDEX transfers_by_credit ON transfers (credit, created_ms, id)
    WHERE credit <> ':revenue';

""",
        sqlite="""
CREATE TRIGGER transfers_stay BEFORE UPDATE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

CREATE TRIGGER transfers_remain BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

""",
        postgres="""
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT';

CREATE FUNCTION refuse_change() RETURNS TRIGGER LANGUAGE plpgsql
    AS 'BEGIN RAISE integrity_constraint_violation USING MESSAGE = ''append-only''; END';

CREATE TRIGGER transfers_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

""",
    ),
    Migration(
        both="""
CREATE TABLE idempotency_keys (
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'stored', 'spent')),
    expire_ms BIGINT,
    answer BYTEA,
    PRIMARY KEY (account, key),
    CHECK ((state = 'running') = (expire_ms IS NULL)),
    CHECK ((state = 'stored') = (answer IS NOT NULL))
);

CREATE INDEX idempotency_keys_running ON idempotency_keys (owner) WHERE state = 'running';

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expire_ms)
    WHERE expire_ms IS NOT NULL;

"""
    ),
    Migration(
        both="""
CREATE TABLE former_secrets (
    digest TEXT PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES keys (id),
    until_ms BIGINT NOT NULL
);

CREATE INDEX former_secrets_by_key ON former_secrets (key_id);

"""
    ),
    Migration(
        both="",
        postgres="""
CREATE TABLE notices (
    number BIGINT NOT NULL
);

INSERT INTO notices VALUES (0);

""",
    ),
    Migration(
        both="""
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    created_ms BIGINT NOT NULL
);

CREATE TABLE key_requests (
    request_id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL
);

"""
    ),
    Migration(
        both="""
ALTER TABLE holds ADD COLUMN extends TEXT NOT NULL DEFAULT '';

"""
    ),
    Migration(
        both="""
CREATE TABLE audit_entries (
    id TEXT PRIMARY KEY,
    created_ms BIGINT NOT NULL,
    actor_type TEXT NOT NULL CHECK (actor_type IN ('operator', 'key', 'system')),
    actor TEXT NOT NULL,
    account TEXT NOT NULL,
    method TEXT NOT NULL,
    resource TEXT NOT NULL,
    before_text TEXT NOT NULL,
    after_text TEXT NOT NULL,
    request_id TEXT NOT NULL
);

CREATE INDEX audit_entries_by_time ON audit_entries (created_ms, id);

CREATE INDEX audit_entries_by_account ON audit_entries (account, created_ms, id);

""",
        sqlite="""
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

""",
        postgres="""
CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

""",
    ),
    Migration(
        both="""
CREATE TABLE channel_switches (
    channel TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    disabled_ms BIGINT NOT NULL,
    until_ms BIGINT
);

"""
    ),
    Migration(
        both="""
CREATE TABLE hold_sums (
    account TEXT NOT NULL,
    day BIGINT NOT NULL,
    model TEXT NOT NULL,
    key_id TEXT NOT NULL,
    month TEXT NOT NULL,
    settled BIGINT NOT NULL,
    voided BIGINT NOT NULL,
    recovered BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL CHECK (prompt_tokens <= 4611686018427387904),
    completion_tokens BIGINT NOT NULL CHECK (completion_tokens <= 4611686018427387904),
    thinking_tokens BIGINT NOT NULL CHECK (thinking_tokens <= 4611686018427387904),
    cache_read_tokens BIGINT NOT NULL CHECK (cache_read_tokens <= 4611686018427387904),
    cache_write_tokens BIGINT NOT NULL CHECK (cache_write_tokens <= 4611686018427387904),
    charge BIGINT NOT NULL CHECK (charge <= 4611686018427387904),
    overrun BIGINT NOT NULL CHECK (overrun <= 4611686018427387904),
    PRIMARY KEY (account, day, model, key_id, month)
) WITHOUT ROWID;

CREATE TABLE hold_retention (
    owner TEXT NOT NULL,
    until_ms BIGINT NOT NULL,
    before_ms BIGINT NOT NULL
);

INSERT INTO hold_retention VALUES ('', 0, 0);

CREATE INDEX holds_extensions ON holds (extends) WHERE extends <> '';

"""
    ),
)


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables that are migrated together."""

    migrations: tuple[Migration, ...]
    version_table: str
    """Table of PostgreSQL with the version. SQLite has it in the file."""
    partitioned: str = ""
    """Table of which the gateway creates partitions while it runs. Empty: none."""

    @property
    def version(self) -> int:
        """Version that this code reads and writes."""
        return len(self.migrations)

    def pending(self, version: int, dialect: str) -> list[list[str]]:
        """Return the statements of each later version. Raise StateError if `version` is newer."""
        self._refuse_newer(version)
        return [migration.statements(dialect) for migration in self.migrations[version:]]

    def applied(self, version: int, dialect: str) -> list[list[str]]:
        """Return the statements up to `version`. Raise StateError if it is newer than this code."""
        self._refuse_newer(version)
        return [migration.statements(dialect) for migration in self.migrations[:version]]

    def tables(self, version: int, dialect: str) -> list[str]:
        """Return the names of the tables of a version."""
        return [
            name
            for statements in self.applied(version, dialect)
            for statement in statements
            for name in re.findall(r"\bCREATE TABLE (\w+)", statement)
        ]

    def _refuse_newer(self, version: int) -> None:
        if version > self.version:
            raise StateError(
                f"the state has schema version {version}, this program knows up to {self.version}: "
                "run the newer program, or restore a backup from before its first start"
            )


BOOKS = Schema(MIGRATIONS, "schema_version")
"""Schema of everything but the call log (`services.storage.call_schema`)."""

VERSION = BOOKS.version
