"""Operator routes: the paths of the pages that operators alone have."""

from __future__ import annotations

from collections.abc import Mapping

from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from gateway.console.channel_pages import ChannelPages
from gateway.console.explain_pages import ExplainPages
from gateway.console.live_call_pages import LiveCallPages
from gateway.console.operator_access import OperatorAccess
from gateway.console.operator_pages import (
    ACCOUNTS,
    CHANNELS,
    CONFIGURATION,
    EXPLAIN,
    LEDGER,
    LIMITS,
    LIVE_CALLS,
    LOAD,
    OperatorPages,
)
from gateway.console.pages import Action, Page, Pages
from gateway.console.process_pages import ProcessPages

_ACCOUNT = f"{ACCOUNTS}/{{account}}"


class OperatorRoutes:
    """Pages and actions of operators, by path."""

    def __init__(self, pages: Pages, access: OperatorAccess) -> None:
        operations = OperationsServiceStub(access.channel)
        operator = OperatorPages(pages, access.channel)
        channels = ChannelPages(pages, operations)
        live = LiveCallPages(pages, operations)
        explain = ExplainPages(pages, operations)
        process = ProcessPages(pages, operations, access.bodies)
        self.pages: Mapping[str, Page] = {
            ACCOUNTS: operator.accounts,
            _ACCOUNT: operator.account,
            CHANNELS: channels.channels,
            LIMITS: process.limits,
            LOAD: process.load,
            LIVE_CALLS: live.live_calls,
            EXPLAIN: explain.form,
            CONFIGURATION: process.configuration,
            LEDGER: operator.ledger,
        }
        self.actions: Mapping[str, Action] = {
            ACCOUNTS: operator.open_account,
            _ACCOUNT: operator.change_account,
            f"{_ACCOUNT}/keys": operator.change_keys,
            CHANNELS: channels.switch,
            LIVE_CALLS: live.abort,
            f"{CHANNELS}/test": channels.test,
            EXPLAIN: explain.explain,
            CONFIGURATION: process.reload,
            LEDGER: operator.verify,
        }
