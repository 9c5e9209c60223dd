"""Scope of a reader of the call log: the rows and columns that it may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from services.admission.keyring import Keyring
from services.rpc.call_context import Context, metadata_of


@dataclass(frozen=True, slots=True)
class CallScope:
    """Rows and columns of a reader."""

    account: str = ""
    """Account whose rows are seen. Empty: all, with the columns for operators."""

    @property
    def is_operator(self) -> bool:
        """Whether all rows are seen, whole."""
        return not self.account


ScopeOf: TypeAlias = Callable[[Context], Awaitable[CallScope]]
"""Returns the scope of a call. Raises Failure if its key is not valid."""


def scope_of_key(keyring: Keyring) -> ScopeOf:
    """Return what gives callers the rows of the account of their key."""

    async def scope(context: Context) -> CallScope:
        caller = await keyring.authenticate(metadata_of(context).get("authorization"))
        return CallScope(caller.account)

    return scope


async def operator_scope(_context: Context) -> CallScope:
    """Return the scope of operators, whose listener has checked them."""
    return CallScope()
