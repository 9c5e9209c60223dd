"""Schema of a PostgreSQL database: migration, and the privileges of the gateway's role."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import asyncpg

from services.storage.base import StateError
from services.storage.postgres_connector import Connection
from services.storage.schema import BOOKS, Schema

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x706F6D6F
"""Advisory lock of schema migrations: ASCII `pomo`. It belongs to a transaction and not to a
session, so it holds behind a pooler, too."""

UNUSABLE = """
    SELECT name FROM unnest($1::TEXT[]) AS name
    WHERE to_regclass(name) IS NOT NULL
        AND NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT'))
"""

FREE_SLOTS = """
    SELECT least(
        current_setting('max_connections')::INT
            - current_setting('superuser_reserved_connections')::INT
            - coalesce(current_setting('reserved_connections', TRUE), '0')::INT
            - (SELECT sum(numbackends) FROM pg_stat_database)::INT,
        (SELECT nullif(datconnlimit, -1) - numbackends
         FROM pg_database JOIN pg_stat_database ON pg_database.oid = datid
         WHERE pg_database.datname = current_database()),
        (SELECT nullif(rolconnlimit, -1)
            - (SELECT count(*)::INT FROM pg_stat_activity WHERE usename = current_user)
         FROM pg_roles WHERE rolname = current_user)
    )
"""
"""Connections that the role may still open: of the server, the database and the role itself."""


async def log_missing_slots(connection: Connection, size: int, most: int) -> None:
    """Log if the server has fewer connection slots left than this process may need."""
    free = await connection.fetchval(FREE_SLOTS)
    if free is not None and size + free < most:
        extra = {"connections": most, "free": size + max(0, free)}
        log.warning("database_slots.short", extra={**extra, "remedy": "state.connections"})


async def migrate(connection: Connection, schema: Schema = BOOKS) -> None:
    """Migrate the schema in one transaction. Of several processes the first one does it.

    Raise StateError if the schema is newer or incomplete, or the role lacks privileges.
    """
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            await _migrate(connection, schema)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError) as error:
        async with connection.transaction():
            text = await _missing_grant(connection, schema, error)
        raise StateError(f"state.database_url: {text}") from error
    async with connection.transaction():
        await _check_privileges(connection, _needed(schema))


async def check_schema(connection: Connection, schema: Schema = BOOKS) -> None:
    """Raise StateError if a migration, or the gateway's statements, would fail. Change nothing."""
    async with connection.transaction(readonly=True):
        version, table = 0, schema.version_table
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
            await _check_privileges(connection, [table])
            version = await _version(connection, schema)
        await _check_tables(connection, schema.tables(version, "postgres"))
        await _check_privileges(connection, _needed(schema))
        creates = version < schema.version or schema.partitioned
        if creates and (grant := await _missing_create(connection)):
            raise StateError(f"state.database_url: {grant}")
        await _check_owner(connection, schema.partitioned)


async def _migrate(connection: Connection, schema: Schema) -> None:
    table = schema.version_table
    # A role without CREATE may not even say IF NOT EXISTS.
    if await connection.fetchval("SELECT to_regclass($1) IS NULL", table):
        await connection.execute(f"CREATE TABLE {table} (version BIGINT)")
    version = await _version(connection, schema)
    await _check_tables(connection, schema.tables(version, "postgres"))
    for statements in schema.pending(version, "postgres"):
        for statement in statements:
            await connection.execute(statement)
    if version < schema.version:
        await connection.execute(f"INSERT INTO {table} VALUES ($1)", schema.version)  # noqa: S608


async def _version(connection: Connection, schema: Schema) -> int:
    found = await connection.fetchval(f"SELECT max(version) FROM {schema.version_table}")  # noqa: S608
    return int(found or 0)


def _needed(schema: Schema) -> Sequence[str]:
    """Return the tables that the gateway's role must be able to use."""
    return [schema.version_table, *schema.tables(schema.version, "postgres")]


async def _check_tables(connection: Connection, expected: Sequence[str]) -> None:
    missing = await connection.fetch(
        "SELECT name FROM unnest($1::TEXT[]) AS name WHERE to_regclass(name) IS NULL", expected
    )
    if missing:
        names = ", ".join(str(row[0]) for row in missing)
        raise StateError(f"state.database_url: tables are missing ({names}): restore a backup")


async def _check_privileges(connection: Connection, needed: Sequence[str]) -> None:
    rows = await connection.fetch(UNUSABLE, needed)
    if rows:
        names = ", ".join(str(row[0]) for row in rows)
        role = await connection.fetchval("SELECT quote_ident(current_user)")
        raise StateError(
            f"state.database_url: the role {role} may not use the tables: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {role}"
        )


async def _check_owner(connection: Connection, table: str) -> None:
    """Raise StateError if the role may not create partitions of a table that exists."""
    owns = await connection.fetchval(
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)", table
    )
    if owns is False:
        role = await connection.fetchval("SELECT quote_ident(current_user)")
        raise StateError(
            f"state.database_url: the role {role} may create no partition of {table}: "
            f"ALTER TABLE {table} OWNER TO {role}"
        )


async def _missing_grant(
    connection: Connection, schema: Schema, error: asyncpg.PostgresError
) -> str:
    await _check_privileges(connection, _needed(schema))
    if grant := await _missing_create(connection):
        return grant
    return f"{error.args[0]}: start the gateway once as the owner of the tables"


async def _missing_create(connection: Connection) -> str:
    """Return the grant without which the role can create no table. Empty: it can."""
    role, schema, path = await connection.fetchrow(
        "SELECT quote_ident(current_user), quote_ident(current_schema()),"
        " current_setting('search_path')"
    ) or ("", None, "")
    if schema is None:
        return (
            f"the role {role} may use no schema of its search_path ({path}): "
            f"CREATE SCHEMA … AUTHORIZATION {role}, or GRANT USAGE, CREATE ON SCHEMA … TO {role}"
        )
    if await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
        return ""
    return (
        f"the role {role} may not create tables in the schema {schema}: "
        f"GRANT CREATE ON SCHEMA {schema} TO {role}"
    )
