"""The gRPC servicers of a process: for callers with a key, and for operators."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledgers
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.calls.v1 import call_service_pb2_grpc as calls_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings_pb
from pomogator.embeddings.v1 import embedding_service_pb2_grpc as embeddings_grpc
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1 import model_service_pb2_grpc as models_grpc
from pomogator.operations.v1 import operations_service_pb2 as operations_pb
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc
from pomogator.relay.v1 import relay_service_pb2_grpc as relay_grpc
from pomogator.tenants.v1 import tenant_service_pb2 as tenants
from pomogator.tenants.v1 import tenant_service_pb2_grpc as tenants_grpc
from pomogator.usage.v1 import usage_service_pb2 as usage
from pomogator.usage.v1 import usage_service_pb2_grpc as usage_grpc

from services.accounts.key_maker import KeyMaker
from services.accounts.key_reports import KeyReports
from services.accounts.operator_services import OperatorServices
from services.accounts.tenant_servicer import TenantServicer
from services.accounts.usage_servicer import UsageServicer
from services.call_log.call_servicer import CallServicer
from services.clock import Clock
from services.completions.relay_servicer import RelayServicer
from services.completions.servicer import ChatCompletionServicer
from services.config import Config
from services.embeddings.servicer import EmbeddingServicer
from services.models.servicer import ModelServicer
from services.operations.servicer import OperationsServicer
from services.serving.call_log_parts import RunningCallLog
from services.serving.stores import Stores

CALL_SERVICE = calls.DESCRIPTOR.services_by_name["CallService"].full_name
"""For callers with a key and for operators."""

PUBLIC_SERVICES = (
    chat.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name,
    embeddings_pb.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
    models.DESCRIPTOR.services_by_name["ModelService"].full_name,
    usage.DESCRIPTOR.services_by_name["UsageService"].full_name,
    CALL_SERVICE,
    tenants.DESCRIPTOR.services_by_name["TenantService"].full_name,
)
OPERATORS_SERVICES = (
    accounts.DESCRIPTOR.services_by_name["AccountService"].full_name,
    keys.DESCRIPTOR.services_by_name["KeyService"].full_name,
    audit.DESCRIPTOR.services_by_name["AuditService"].full_name,
    ledgers.DESCRIPTOR.services_by_name["LedgerService"].full_name,
    operations_pb.DESCRIPTOR.services_by_name["OperationsService"].full_name,
    CALL_SERVICE,
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicServicers:
    """Servicers for callers with a key."""

    completions: ChatCompletionServicer
    embeddings: EmbeddingServicer
    relay: RelayServicer
    models: ModelServicer
    usage: UsageServicer
    calls: CallServicer
    tenants: TenantServicer
    health: HealthServicer

    def register(self, server: grpc.aio.Server) -> None:
        """Add them to a server."""
        chat_grpc.add_ChatCompletionServiceServicer_to_server(self.completions, server)
        embeddings_grpc.add_EmbeddingServiceServicer_to_server(self.embeddings, server)
        relay_grpc.add_RelayServiceServicer_to_server(self.relay, server)
        models_grpc.add_ModelServiceServicer_to_server(self.models, server)
        usage_grpc.add_UsageServiceServicer_to_server(self.usage, server)
        calls_grpc.add_CallServiceServicer_to_server(self.calls, server)
        tenants_grpc.add_TenantServiceServicer_to_server(self.tenants, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorServicers:
    """Servicers for operators: accounts, keys and the ledger, and operations."""

    accounts: OperatorServices
    operations: OperationsServicer
    calls: CallServicer
    health: HealthServicer

    def register(self, server: grpc.aio.Server) -> None:
        """Add them to a server."""
        self.accounts.register(server)
        operations_grpc.add_OperationsServiceServicer_to_server(self.operations, server)
        calls_grpc.add_CallServiceServicer_to_server(self.calls, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
