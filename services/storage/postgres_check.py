"""Check of PostgreSQL URLs: whether the server can be used, without a change to it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any

from services.storage.base import ConnectionCheck, DatabaseOptions, StateError
from services.storage.call_schema import CALL_LOG
from services.storage.postgres_connector import (
    CONNECTION_ERRORS,
    PostgresConnector,
    describe,
    is_permanent,
)
from services.storage.postgres_schema import check_schema
from services.storage.schema import BOOKS, Schema

TIMEOUT_S = 5.0
"""Timeout of what follows a connection."""


async def check_database(url: str, options: DatabaseOptions) -> ConnectionCheck:
    """Connect as a start does, and check the schema and the role's privileges."""
    connector = PostgresConnector(url, options.prepared_statements)
    return await _checked(connector, _check_schema(connector))


async def check_call_log(url: str, options: DatabaseOptions) -> ConnectionCheck:
    """Connect as the call log does, and check its schema and the role's privileges."""
    connector = PostgresConnector(url, options.prepared_statements, key="state.call_log_url")
    return await _checked(connector, _check_schema(connector, CALL_LOG))


async def check_direct_url(url: str, options: DatabaseOptions) -> ConnectionCheck:
    """Check that a notice which is sent over `url` is heard over the direct URL."""
    connector = PostgresConnector(options.direct_url, key="state.database_direct_url")
    return await _checked(connector, _check_notices(connector, PostgresConnector(url)))


async def _checked(
    connector: PostgresConnector, check: Coroutine[Any, Any, str]
) -> ConnectionCheck:
    try:
        failure = await check
    except StateError as error:
        text = str(error).removeprefix("state.database_url: ")
        return ConnectionCheck(connector.address, text, permanent=True)
    except CONNECTION_ERRORS as error:
        return ConnectionCheck(connector.address, describe(error), is_permanent(error))
    return ConnectionCheck(connector.address, failure, permanent=bool(failure))


async def _check_schema(connector: PostgresConnector, schema: Schema = BOOKS) -> str:
    connection = await connector.connect()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await connector.probe(connection)
            await check_schema(connection, schema)
    finally:
        connection.terminate()
    return ""


async def _check_notices(direct: PostgresConnector, sender: PostgresConnector) -> str:
    channel = f"check_{secrets.token_hex(8)}"
    heard = asyncio.Event()
    listening = await direct.connect()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await listening.add_listener(channel, lambda *_: heard.set())
        if not await _notify(sender, channel):
            return ""  # The check of the other URL tells why.
        async with asyncio.timeout(TIMEOUT_S):
            await heard.wait()
    except TimeoutError:
        return "notices that are sent over state.database_url do not arrive: a pooler?"
    finally:
        listening.terminate()
    return ""


async def _notify(sender: PostgresConnector, channel: str) -> bool:
    """Send a notice, and return whether that was possible."""
    try:
        connection = await sender.connect()
    except CONNECTION_ERRORS:
        return False
    try:
        # A pooler may tear two statements apart.
        async with asyncio.timeout(TIMEOUT_S), connection.transaction():
            await connection.execute("SELECT pg_notify($1, '')", channel)
    except CONNECTION_ERRORS:
        return False
    finally:
        connection.terminate()
    return True
