"""Stores of a service: database, pepper, limit counters; and the ledger and keys in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.admission.keyring import Keyring
from services.admission.leases import LimitLeases
from services.config import StateConfig
from services.metering.current_reads import CurrentReads
from services.metering.hold_retention import HoldRetention
from services.metering.ledger import Ledger
from services.serving.process_parts import ProcessParts
from services.serving.replica_count import ReplicaCount
from services.storage.base import Database, DatabaseOptions, declare_database_metrics
from services.storage.opening import open_counters, open_database, open_reasoning
from services.storage.pepper import Pepper, load_pepper
from services.storage.reasoning import ReasoningStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Open stores."""

    database: Database
    pepper: Pepper
    keyring: Keyring
    ledger: Ledger
    leases: LimitLeases
    reasoning: ReasoningStore

    @property
    def books(self) -> Database:
        """The database for reports, which include what calls have done until now."""
        return CurrentReads(self.database, self.ledger)

    @property
    def healthy(self) -> bool:
        """Whether calls can be admitted and settled."""
        return self.ledger.healthy and self.database.healthy


async def open_stores(
    parts: ProcessParts, config: StateConfig, state: Path, env: Mapping[str, str]
) -> Stores:
    """Open the stores that the configuration names. Raises StateError."""
    stack, clock = parts.stack, parts.clock
    options = database_options(config)
    database = await open_database(state, config.database_url.reveal(), clock, options)
    declare_database_metrics(parts.counters, database)
    stack.push_async_callback(database.close)
    pepper = await load_pepper(state, env, database)
    replicas = ReplicaCount(database)
    redis_url = config.redis_url.reveal()
    opening = open_counters(redis_url, clock, replicas=lambda: replicas.number)
    counters = await stack.enter_async_context(opening)
    ledger = Ledger(database, clock, supervisor=parts.supervisor)
    leases = LimitLeases(counters, parts.chance, supervisor=parts.supervisor)
    ledger.declare_metrics(parts.counters)
    leases.declare_metrics(parts.counters)
    ledger = await stack.enter_async_context(ledger)
    if config.redis_url and config.database_url:
        watching = parts.supervisor.running(replicas.watch, "replica count")
        await stack.enter_async_context(watching)
    return Stores(
        database=database,
        pepper=pepper,
        keyring=Keyring(database, pepper, clock, parts.chance),
        ledger=ledger,
        leases=await stack.enter_async_context(leases),
        reasoning=await stack.enter_async_context(open_reasoning(redis_url, clock)),
    )


async def open_hold_retention(parts: ProcessParts, stores: Stores, keep_days: int) -> None:
    """Delete ended holds that are older, from now on. 0: never."""
    if keep_days:
        retention = HoldRetention(
            stores.database, stores.ledger.owner, parts.clock, keep_days, parts.counters
        )
        running = parts.supervisor.running(retention.run, "hold retention")
        await parts.stack.enter_async_context(running)


def database_options(config: StateConfig) -> DatabaseOptions:
    """Return the options of a database on a server."""
    return DatabaseOptions(
        direct_url=config.database_direct_url.reveal(),
        connections=config.connections,
        prepared_statements=config.prepared_statements,
    )
