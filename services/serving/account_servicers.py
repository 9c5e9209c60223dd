"""Servicers of accounts: of usage and administration for callers, and those for operators."""

from __future__ import annotations

from services.accounts.key_maker import KeyMaker
from services.accounts.key_reports import KeyReports
from services.accounts.operator_services import OperatorServices
from services.accounts.tenant_servicer import TenantServicer
from services.accounts.usage_servicer import UsageServicer
from services.clock import Clock
from services.config import Config
from services.serving.call_log_parts import RunningCallLog
from services.serving.stores import Stores


def account_servicers(
    stores: Stores, clock: Clock, config: Config
) -> tuple[UsageServicer, TenantServicer]:
    """Return the servicers, which share the limit on concurrent reports."""
    reports = KeyReports(stores.books, clock)
    tenants = TenantServicer(
        keyring=stores.keyring,
        database=stores.database,
        maker=KeyMaker(stores.database, stores.pepper, clock),
        reports=reports,
        clock=clock,
        keys_max=config.keys.per_account_max,
        audit_keep_ms=config.audit.keep_ms,
    )
    return UsageServicer(stores.keyring, stores.books, reports), tenants


def operator_services(
    stores: Stores, clock: Clock, config: Config, call_log: RunningCallLog
) -> OperatorServices:
    """Return the services of accounts for operators."""
    return OperatorServices(
        database=stores.books,
        pepper=stores.pepper,
        clock=clock,
        withdraw=stores.ledger.withdraw,
        audit_calls=call_log.audit,
        audit_keep_ms=config.audit.keep_ms,
    )
