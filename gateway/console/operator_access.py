"""What a console needs to serve operators."""

from __future__ import annotations

from typing import NamedTuple

import grpc

from gateway.overload.body_budget import BodyBudget


class OperatorAccess(NamedTuple):
    """Channel, token and figures with which a console serves operators, too."""

    channel: grpc.aio.Channel
    """Leads to the operators' services. It needs no credential of its own."""
    token: str
    """The token that operators sign in with."""
    bodies: BodyBudget
    """The memory for large requests of this process, to be looked at."""

    def __repr__(self) -> str:
        return object.__repr__(self)  # Without the token.
